"""Plain adversarial training."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

__all__ = ["adversarial"]


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


@dataclass(frozen=True)
class adversarial:
    """Cross-entropy on adversarial images, which are found by maximising that same cross-entropy.

    Args:
        criterion: (logits (N,K), labels (N,) or soft (N,K)) -> one loss per image (N,), for the update; the attack
            always maximises the plain cross-entropy.

    Source: Madry et al., arXiv:1706.06083, equation 2.1.
    """

    criterion: Callable[[Tensor, Tensor], Tensor] = _cross_entropy
    needs_clean = False

    def attack_loss(self, logits: Tensor, labels: Tensor, clean_logits: Tensor | None) -> Tensor:
        """What the adversary maximises: (N,)."""
        return _cross_entropy(logits, labels)

    def loss(self, adversarial_logits: Tensor, labels: Tensor, clean_logits: Tensor | None) -> Tensor:
        """What training minimises: (N,)."""
        return self.criterion(adversarial_logits, labels)
