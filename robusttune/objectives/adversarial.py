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
    """Cross-entropy on adversarial images, which an attack finds by maximising the same cross-entropy.

    Args:
        criterion: (logits (N,K), labels (N,) or soft (N,K)) -> one loss per image (N,), for the training loss; the attack
            always maximises the plain cross-entropy.
        label_smoothing: the share of each label that is spread over all classes, in the training loss only.

    Raises:
        ValueError: label_smoothing is not in [0, 1), or is used together with a criterion.

    Source: Madry et al., arXiv:1706.06083, equation 2.1; label smoothing: Pang et al., arXiv:2010.00467.
    """

    criterion: Callable[[Tensor, Tensor], Tensor] = _cross_entropy
    label_smoothing: float = 0.0
    needs_clean = False

    def __post_init__(self) -> None:
        share = self.label_smoothing
        if not isinstance(share, int | float) or not 0 <= share < 1:
            raise ValueError(f"label_smoothing is {share!r}, but a number from 0 to below 1 is needed, such as 0.1")
        if share and self.criterion is not _cross_entropy:
            raise ValueError(
                f"label_smoothing={share} is for the cross-entropy, but criterion= replaces it: let the criterion "
                "smooth labels itself, such as torch.nn.CrossEntropyLoss(label_smoothing=…)"
            )

    def attack_loss(self, logits: Tensor, labels: Tensor, clean_logits: Tensor | None) -> Tensor:
        """Return the loss per image (N,) that the attack maximises: the cross-entropy."""
        return _cross_entropy(logits, labels)

    def loss(self, adversarial_logits: Tensor, labels: Tensor, clean_logits: Tensor | None) -> Tensor:
        """Return the loss per image (N,) that training minimises."""
        if self.label_smoothing:
            return F.cross_entropy(adversarial_logits, labels, reduction="none", label_smoothing=self.label_smoothing)
        return self.criterion(adversarial_logits, labels)
