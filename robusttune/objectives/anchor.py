"""Adversarial training that stays close to the answers of a teacher, as a rule of the model as it was before."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

__all__ = ["anchor"]


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


@dataclass(frozen=True)
class anchor:
    """Cross-entropy on adversarial images, plus the squared distance of their logits to a teacher's on the unchanged images.

    The teacher is that of `harden` and `RobustLoss`: by default the model as it came in, which classifies unchanged images
    best. The attack maximises the cross-entropy alone.

    Args:
        weight: of the distance, which is a mean over the classes.
        criterion: see `adversarial`.

    Raises:
        ValueError: weight is not a finite number of at least 0.

    Source: Cui et al., arXiv:2011.11164, with a frozen teacher and true labels beside it.
    """

    weight: float = 1.0
    criterion: Callable[[Tensor, Tensor], Tensor] = _cross_entropy
    needs_clean = False
    needs_teacher = True

    def __post_init__(self) -> None:
        if not isinstance(self.weight, int | float) or not 0 <= self.weight < math.inf:
            raise ValueError(f"weight is {self.weight!r}, but a finite number of at least 0 is needed: 1 as a rule")

    def attack_loss(self, logits: Tensor, labels: Tensor, clean_logits: Tensor | None) -> Tensor:
        """Return the loss per image (N,) that the attack maximises: the cross-entropy."""
        return _cross_entropy(logits, labels)

    def loss(self, adversarial_logits: Tensor, labels: Tensor, clean_logits: Tensor) -> Tensor:
        """Return the loss per image (N,) that training minimises; clean_logits (N,K) are the teacher's."""
        distance = (adversarial_logits - clean_logits.to(adversarial_logits.dtype)).square().mean(1)
        return self.criterion(adversarial_logits, labels) + self.weight * distance
