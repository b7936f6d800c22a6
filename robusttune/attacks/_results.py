"""Calls of attacks, with a look at what they return."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robusttune.run.settings import shown_radius
from robusttune.threat import LossOf, ThreatModel
from robusttune.types import shown

if TYPE_CHECKING:
    from robusttune.attacks import Attack

SLACK = 1e-3  # share of the radius, for rounding
ROUNDING = 1e-5  # tolerance of pixel values, for rounding


def attacked(
    attack: "Attack",
    loss_of: LossOf,
    images: Tensor,
    threat: ThreatModel,
    *,
    generator: torch.Generator,
    inside: bool = False,
) -> Tensor:
    """Run an attack, and return its images (N,C,H,W).

    Args:
        attack: the attack, which may be a user's.
        loss_of: images -> one loss per image (N,).
        images: (N,C,H,W) in [0,1].
        threat: the adversary.
        generator: source of all random numbers.
        inside: refuse images outside of the ball or the box, which an accuracy at this radius must not count.

    Raises:
        ValueError: the result has another shape or type, or images outside of the threat model with `inside`.
    """
    # A copy, as the distance from images that an attack writes into would be 0.
    results = attack(loss_of, images.clone() if inside else images, threat, generator=generator)
    if not isinstance(results, Tensor) or results.shape != images.shape or not results.is_floating_point():
        got = f"{results.dtype} {tuple(results.shape)}" if isinstance(results, Tensor) else shown(results)
        raise ValueError(
            f"the attack {shown(attack)} returned {got} for images of shape {tuple(images.shape)}: it must return changed "
            "images of that shape, floats on [0, 1]"
        )
    if inside:
        _check_inside(attack, results, images, threat)
    return results


def _check_inside(attack: "Attack", results: Tensor, images: Tensor, threat: ThreatModel) -> None:
    """Raise a ValueError for results outside of the ball or the box; NaN is outside of both."""
    distances = threat.size(results.detach(), images)
    low, high = torch.aminmax(results.detach())
    near = (distances <= threat.eps * (1 + SLACK) + ROUNDING).all()
    if bool(near & (low >= -ROUNDING) & (high <= 1 + ROUNDING)):
        return
    where = (
        f"up to {float(distances.max()):.4g} away in {threat.norm}, but the radius is {shown_radius(threat.eps)}"
        if not near
        else f"with pixels in [{float(low):.4g}, {float(high):.4g}], but pixels span [0, 1]"
    )
    raise ValueError(
        f"the attack {shown(attack)} returned images {where}, so its accuracy would be of another threat: let it return "
        "threat.project(candidates, images)"
    )
