"""Attacks that search a threat model for images with a high loss, one file each: a function, see `Attack`."""

from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from robusttune.model.borrowing import differentiable
from robusttune.threat import LossOf, ThreatModel

__all__ = ["Attack", "AttackLike", "LossOf", "ThreatModel", "differentiable"]


class Attack(Protocol):
    """The contract of a file in `attacks/`: a function from images to images with a higher loss.

    - It searches inside the threat model, and works inside `differentiable()`, as callers may have switched gradients
      off.
    - It treats each image separately, and writes into no argument.
    - All random numbers come from `generator`.
    - The result has no gradient, and the shape, type and memory format of the images.
    - Settings of its own are keyword arguments with defaults; users change them with `functools.partial`. `steps`,
      `step_size` and `random_start` have these names where an attack has such settings.
    """

    def __call__(
        self, loss_of: LossOf, images: Tensor, threat: ThreatModel, /, *, generator: torch.Generator
    ) -> Tensor:
        """Return images (N,C,H,W) in [0,1] whose loss is high.

        Args:
            loss_of: images -> one loss per image (N,); differentiable.
            images: (N,C,H,W) in [0,1].
            threat: the ball around each image, and the pixel box.
            generator: source of all random numbers.
        """


# An attack as users write it: the name of a file, or a function.
AttackLike: TypeAlias = str | Attack
