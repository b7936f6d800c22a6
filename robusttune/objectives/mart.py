"""MART: adversarial training with more weight on images that are misclassified when clean."""

import sys
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["mart"]


@dataclass(frozen=True)
class mart:
    """Boosted cross-entropy on adversarial images, plus beta times a divergence weighted by the clean image's error.

    The boost adds −log(1 − p), where p is the largest probability of a wrong class. The divergence is KL(clean ‖
    adversarial), weighted by 1 − p of the right class on the clean image. Soft labels give the weighted mean
    over their labels. The attack maximises the plain cross-entropy.

    1 − p is computed here exactly, as a sum over the other classes in logarithms. The authors' code adds 1e-4 to it, so
    that the boost is at most 9.2 there, and has no gradient where the model is sure of a wrong class.

    Args:
        beta: weight of the divergence.

    Raises:
        ValueError: beta is not a finite number of at least 0.

    Source: Wang et al., Improving adversarial robustness requires revisiting misclassified examples, ICLR 2020,
    section 3.
    """

    beta: float = 6.0
    needs_clean = True

    def __post_init__(self) -> None:
        if not isinstance(self.beta, int | float) or not 0 <= self.beta <= sys.float_info.max:
            raise ValueError(
                f"beta is {self.beta!r}, but a finite number of at least 0 is needed; the usual value is 6"
            )

    def attack_loss(self, logits: Tensor, labels: Tensor, clean_logits: Tensor) -> Tensor:
        """Return the loss per image (N,) that the attack maximises: the cross-entropy."""
        return F.cross_entropy(logits, labels, reduction="none")

    def loss(self, adversarial_logits: Tensor, labels: Tensor, clean_logits: Tensor) -> Tensor:
        """Return the loss per image (N,) that training minimises; gradients reach both logits and the divergence's weight."""
        adversarial, clean = _log_softmax(adversarial_logits), _log_softmax(clean_logits)
        soft = (labels if labels.dim() == 2 else F.one_hot(labels, adversarial.shape[1])).to(adversarial.dtype)
        divergence = F.kl_div(adversarial, clean, reduction="none", log_target=True).sum(1)
        error = -(soft * torch.expm1(clean)).sum(1)
        return _boost(adversarial, soft) - (soft * adversarial).sum(1) + self.beta * error * divergence


def _boost(log_probabilities: Tensor, soft: Tensor) -> Tensor:
    """Return −log(1 − largest probability of a wrong class), averaged over the soft labels (N,K): (N,)."""
    first, second = log_probabilities.topk(2, dim=1).indices.unbind(1)
    right = soft.gather(1, first[:, None])[:, 0]
    wrong = soft.sum(1) - right
    return wrong * _without(log_probabilities, first) + right * _without(log_probabilities, second)


def _without(log_probabilities: Tensor, classes: Tensor) -> Tensor:
    """Return −log of the total probability of all classes except one class per image: (N,)."""
    excluded = F.one_hot(classes, log_probabilities.shape[1]).bool()
    return -log_probabilities.masked_fill(excluded, -torch.inf).logsumexp(1)


def _log_softmax(logits: Tensor) -> Tensor:
    # In half precision, the divergence of nearly equal outputs would be nothing but rounding errors.
    return logits.log_softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32))
