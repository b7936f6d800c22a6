"""Robust classification losses, one file each: a class whose instances are objectives, see `Objective`."""

from typing import Any, Protocol, TypeAlias

from torch import Tensor

__all__ = ["Objective", "ObjectiveLike"]


class Objective(Protocol):
    """The contract of a file in `objectives/`: a class whose instances compute the attack's loss and the training loss.

    The class can be called without arguments, so its settings have defaults. A frozen dataclass compares by its
    settings, which resuming a run needs. A field named `criterion` is replaced by `harden(criterion=…)`.

    Attributes:
        needs_clean: whether both losses need the logits of the clean images, which cost one more forward pass.
    """

    @property
    def needs_clean(self) -> bool: ...

    # `clean_logits` is Any, so that an objective can annotate what it needs: Tensor, or None if it needs none.
    def attack_loss(self, logits: Tensor, labels: Tensor, clean_logits: Any) -> Tensor:
        """Return the loss per image (N,) that the attack maximises.

        Args:
            logits: (N,K), of the images that the attack tries.
            labels: classes (N,), or soft labels (N,K).
            clean_logits: (N,K) in eval mode and without gradient; None unless `needs_clean`.
        """

    def loss(self, adversarial_logits: Tensor, labels: Tensor, clean_logits: Any) -> Tensor:
        """Return the loss per image (N,) that training minimises.

        Args:
            adversarial_logits: (N,K), of the images that the attack returned.
            labels: classes (N,), or soft labels (N,K).
            clean_logits: (N,K) with gradient; None unless `needs_clean`.
        """


# An objective as users write it: the name of a file, or an object.
ObjectiveLike: TypeAlias = str | Objective
