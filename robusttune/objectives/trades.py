"""TRADES: a trade-off between accuracy on clean images and outputs that an attack cannot change."""

import sys
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["trades"]


@dataclass(frozen=True)
class trades:
    """Cross-entropy on clean images, plus beta times the divergence of the outputs on adversarial images.

    The divergence is KL(clean ‖ adversarial), which the attack maximises too, without labels. Its gradient is zero at the
    clean image, so the attack has to start at another point, as built-in attacks do by default.

    Args:
        beta: weight of the divergence; the larger, the more robust and the less accurate.
        label_smoothing: the share of each label that is spread over all classes.

    Raises:
        ValueError: beta is not a finite number of at least 0, or label_smoothing is not in [0, 1).

    Source: Zhang et al., arXiv:1901.08573, equation 5, where beta is 1/lambda.
    """

    beta: float = 6.0
    label_smoothing: float = 0.0
    needs_clean = True

    def __post_init__(self) -> None:
        beta, share = self.beta, self.label_smoothing
        if not isinstance(beta, int | float) or not 0 <= beta <= sys.float_info.max:
            raise ValueError(f"beta is {beta!r}, but a finite number of at least 0 is needed; the usual value is 6")
        if not isinstance(share, int | float) or not 0 <= share < 1:
            raise ValueError(f"label_smoothing is {share!r}, but a number from 0 to below 1 is needed, such as 0.1")

    def attack_loss(self, logits: Tensor, labels: Tensor, clean_logits: Tensor) -> Tensor:
        """Return the loss per image (N,) that the attack maximises: the divergence."""
        return _divergence(clean_logits, logits)

    def loss(self, adversarial_logits: Tensor, labels: Tensor, clean_logits: Tensor) -> Tensor:
        """Return the loss per image (N,) that training minimises; gradients reach both logits."""
        clean = F.cross_entropy(clean_logits, labels, reduction="none", label_smoothing=self.label_smoothing)
        return clean + self.beta * _divergence(clean_logits, adversarial_logits)


def _divergence(clean_logits: Tensor, logits: Tensor) -> Tensor:
    """Return KL(clean ‖ adversarial): (N,)."""
    clean, adversarial = _log_softmax(clean_logits), _log_softmax(logits)
    return F.kl_div(adversarial, clean, reduction="none", log_target=True).sum(1)


def _log_softmax(logits: Tensor) -> Tensor:
    # In half precision, the divergence of nearly equal outputs would be nothing but rounding errors.
    return logits.log_softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32))
