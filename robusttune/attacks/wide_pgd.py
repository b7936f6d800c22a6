"""Projected gradient descent in a larger ball than the threat model's, for training only."""

import torch
from torch import Tensor

from robusttune.attacks import LossOf, ThreatModel, declares
from robusttune.attacks.pgd import pgd

__all__ = ["wide_pgd"]


@declares(bounded=False, differentiates_once=True)
def wide_pgd(
    loss_of: LossOf,
    images: Tensor,
    threat: ThreatModel,
    *,
    generator: torch.Generator,
    steps: int = 2,
    width: float = 1.25,
) -> Tensor:
    """Search a ball of `width` times eps with PGD; the results (N,C,H,W) in [0,1] lie outside of the threat model.

    They are for training, where few steps in the threat model's own ball teach a model to withstand just that ball, and
    little beyond it. They say nothing about a model's robustness, so the attack declares `bounded=False`.

    Args:
        loss_of: images -> one loss per image (N,); the images do not influence each other.
        images: (N,C,H,W) in [0,1]; not changed.
        threat: gives the norm and eps.
        generator: source of the random start.
        steps: gradient steps.
        width: radius of the ball, as a multiple of eps; in linf the radius is at most 1.

    Source: our own measurements, see the page of results.

    Example:
        >>> images = torch.full((2, 1, 4, 4), 0.5)
        >>> brighter = wide_pgd(LossOf(lambda x: x.sum((1, 2, 3))), images, ThreatModel("linf", 0.1),
        ...                     generator=torch.Generator())
        >>> bool(torch.allclose(brighter, images + 0.125))
        True
    """
    radius = width * threat.eps
    wide = ThreatModel(threat.norm, min(radius, 1.0) if threat.norm == "linf" else radius)
    return pgd(loss_of, images, wide, generator=generator, steps=steps)
