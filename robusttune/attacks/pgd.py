"""Projected gradient descent."""

import torch
from torch import Tensor

from robusttune.attacks import LossOf, ThreatModel, declares, differentiable, gradient_toward

__all__ = ["pgd"]


@declares(differentiates_once=True)
def pgd(
    loss_of: LossOf,
    images: Tensor,
    threat: ThreatModel,
    *,
    generator: torch.Generator,
    steps: int = 10,
    step_size: float | None = None,
    random_start: bool = True,
) -> Tensor:
    """Search images (N,C,H,W) that the threat model allows and whose loss is high, by steepest ascent and projection.

    Args:
        loss_of: images -> one loss per image (N,); the images do not influence each other.
        images: (N,C,H,W) in [0,1]; not changed.
        threat: the ball and the box.
        generator: source of the random start.
        steps: gradient steps; the last iterate is returned.
        step_size: length of a step in the threat's norm, in pixel units; None for 2.5·eps/steps.
        random_start: start at a random point of the ball instead of at the image.

    Source: Madry et al., arXiv:1706.06083, section 2.1; l2 steps along the normalised gradient.

    Example:
        >>> images = torch.full((2, 1, 4, 4), 0.5)
        >>> brighter = pgd(LossOf(lambda x: x.sum((1, 2, 3))), images, ThreatModel("linf", 0.1),
        ...                generator=torch.Generator())
        >>> bool(torch.allclose(brighter, images + 0.1))
        True
    """
    length = 2.5 * threat.eps / max(steps, 1) if step_size is None else float(step_size)
    with differentiable():
        images = images.detach().clone()
        candidates = threat.start(images, generator) if random_start else images
        for _ in range(steps):
            candidates = candidates.detach().requires_grad_()
            gradient = gradient_toward(candidates, loss_of(candidates))
            candidates = threat.project(candidates.detach() + length * threat.ascent(gradient), images)
    return candidates.detach()
