"""MART: images that are misclassified even when clean count for more."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["mart"]


@dataclass(frozen=True)
class mart:
    """A boosted cross-entropy on adversarial images, and beta times a divergence weighted by the doubt about the clean one.

    The boost adds −log(1 − p), where p is the largest probability of a wrong class. The divergence is KL(clean ‖
    adversarial), weighted by 1 − p of the right class on the clean image. Soft labels give the mean over the labels that
    they are made of. The attack maximises the plain cross-entropy.

    1 − p is a sum over the other classes here, in logarithms, and exact. The authors' code adds 1e-4 to it, so that
    there the boost is at most 9.2 and has no gradient where the model is sure of a wrong class.

    Args:
        beta: weight of the divergence.

    Raises:
        ValueError: beta is no finite number of at least 0.

    Source: Wang et al., Improving adversarial robustness requires revisiting misclassified examples, ICLR 2020,
    section 3.
    """

    beta: float = 6.0
    needs_clean = True

    def __post_init__(self) -> None:
        if not isinstance(self.beta, int | float) or not 0 <= self.beta < math.inf:
            raise ValueError(f"beta is {self.beta!r}, but a finite number of at least 0 is needed: 6 as a rule")

    def attack_loss(self, logits: Tensor, labels: Tensor, clean_logits: Tensor) -> Tensor:
        """What the adversary maximises: (N,)."""
        return F.cross_entropy(logits, labels, reduction="none")

    def loss(self, adversarial_logits: Tensor, labels: Tensor, clean_logits: Tensor) -> Tensor:
        """What training minimises: (N,); both logits are trained, the weight of the divergence too."""
        own, clean = _log_softmax(adversarial_logits), _log_softmax(clean_logits)
        soft = (labels if labels.dim() == 2 else F.one_hot(labels, own.shape[1])).to(own.dtype)
        divergence = F.kl_div(own, clean, reduction="none", log_target=True).sum(1)
        doubt = -(soft * torch.expm1(clean)).sum(1)
        return _boost(own, soft) - (soft * own).sum(1) + self.beta * doubt * divergence


def _boost(log_probabilities: Tensor, soft: Tensor) -> Tensor:
    """−log(1 − largest probability of a wrong class), the mean over the soft labels (N,K): (N,)."""
    first, second = log_probabilities.topk(2, dim=1).indices.unbind(1)
    right = soft.gather(1, first[:, None])[:, 0]
    wrong = soft.sum(1) - right
    return wrong * _without(log_probabilities, first) + right * _without(log_probabilities, second)


def _without(log_probabilities: Tensor, classes: Tensor) -> Tensor:
    """−log of the probability of all classes but one for each image: (N,)."""
    own = F.one_hot(classes, log_probabilities.shape[1]).bool()
    return -log_probabilities.masked_fill(own, -torch.inf).logsumexp(1)


def _log_softmax(logits: Tensor) -> Tensor:
    # In half precision the divergence of answers that are nearly the same would be rounding alone.
    return logits.log_softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32))
