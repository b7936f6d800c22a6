"""Auto-PGD."""

from typing import NamedTuple

import torch
from torch import Tensor

from robusttune.attacks import LossOf, ThreatModel, declares, differentiable
from robusttune.norms import per_image

__all__ = ["apgd"]

FIRST, SHRINK, SHORTEST = 22, 3, 6  # percent of the steps, between one check and the next
PULL = 0.75


@declares(differentiates_once=True)
def apgd(
    loss_of: LossOf,
    images: Tensor,
    threat: ThreatModel,
    *,
    generator: torch.Generator,
    steps: int = 10,
    step_size: float | None = None,
    rho: float = 0.75,
    random_start: bool = True,
) -> Tensor:
    """Images (N,C,H,W) that the threat model allows: of all that each search came by, the one with the highest loss.

    Steps are long at first and have momentum. At set times an image whose loss rose too seldom, or whose best has not
    improved, goes back to its best and takes half as long steps from then on.

    Args:
        loss_of: images -> one loss per image (N,); the images do not influence each other.
        images: (N,C,H,W) in [0,1]; left as they are.
        threat: the ball and the box.
        generator: source of the random start.
        steps: gradient steps; one more forward looks at where the last one led. Training makes do with two.
        step_size: length of the first steps in the threat's norm, in pixel units; 2·eps unless given.
        rho: the share of steps that must raise the loss for their length to stay.
        random_start: start at a random point on the edge of the ball, as the authors' code does, instead of at the image.

    Source: Croce and Hein, arXiv:2003.01690, algorithm 1; two steps in training: Singh et al., arXiv:2303.01870.

    Example:
        >>> images = torch.full((2, 1, 4, 4), 0.5)
        >>> brighter = apgd(LossOf(lambda x: x.sum((1, 2, 3))), images, ThreatModel("linf", 0.1),
        ...                 generator=torch.Generator())
        >>> bool(torch.allclose(brighter, images + 0.1))
        True
    """
    with differentiable():
        images = images.detach().clone()
        start = _random_start(images, threat, generator) if random_start else images
        search = _Search(loss_of, start, 2 * threat.eps if step_size is None else step_size)
        checks = _checks(steps)
        for step in range(1, steps + 1):
            here = search.here.images
            uphill = threat.project(here + search.length * threat.ascent(search.here.gradient), images)
            pull = PULL if step > 1 else 1.0
            moved = here + pull * (uphill - here) + (1 - pull) * (here - search.before)
            search.move(threat.project(moved, images), last=step == steps)
            if step in checks:
                search.check(rho)
    return search.best.images


class _Point(NamedTuple):
    """Images (N,C,H,W), their losses (N,), and the gradients (N,C,H,W)."""

    images: Tensor
    loss: Tensor
    gradient: Tensor


class _Search:
    """Where each image's search stands, the best that it came by, and how long its steps are."""

    def __init__(self, loss_of: LossOf, start: Tensor, length: float) -> None:
        self.loss_of = loss_of
        self.here = self.best = _measured(loss_of, start)
        self.before = start
        self.length = per_image(start.new_full((len(start),), length), start)
        self.taken = 0
        self.rises = torch.zeros_like(self.here.loss)
        self.halved = torch.zeros_like(self.rises, dtype=torch.bool)
        self.highest = self.best.loss

    def move(self, images: Tensor, *, last: bool) -> None:
        """Go on to these images; where the last step led, no gradient is needed any more."""
        point = _measured(self.loss_of, images, with_gradient=not last)
        self.taken += 1
        self.rises = self.rises + (point.loss > self.here.loss)
        self.before, self.here = self.here.images, point
        self.best = _chosen(point.loss > self.best.loss, point, self.best)

    def check(self, rho: float) -> None:
        """Halve the steps of those images that came no further since the last check, and put them back at their best."""
        seldom = self.rises < rho * self.taken
        in_vain = ~self.halved & (self.best.loss <= self.highest)
        self.halved = seldom | in_vain
        self.length = torch.where(per_image(self.halved, self.length), self.length / 2, self.length)
        self.here = _chosen(self.halved, self.best, self.here)
        self.taken, self.rises, self.highest = 0, torch.zeros_like(self.rises), self.best.loss


def _random_start(images: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
    """A random point (N,C,H,W) at distance eps from each image, before it is put into the box."""
    noise = threat.geometry.noise(images, threat.eps, generator)
    size = per_image(threat.geometry.size(noise), noise)
    return threat.project(images + noise * (threat.eps / torch.where(size > 0, size, 1.0)), images)


def _measured(loss_of: LossOf, images: Tensor, *, with_gradient: bool = True) -> _Point:
    if not with_gradient:
        with torch.no_grad():
            return _Point(images, loss_of(images), torch.zeros_like(images))
    images = images.detach().requires_grad_()
    loss = loss_of(images)
    (gradient,) = torch.autograd.grad(loss.sum(), images)
    return _Point(images.detach(), loss.detach(), gradient)


def _chosen(first: Tensor, one: _Point, other: _Point) -> _Point:
    """One point where `first` (N,) holds, the other elsewhere."""
    return _Point(*(torch.where(per_image(first, a), a, b) for a, b in zip(one, other, strict=True)))


def _checks(steps: int) -> set[int]:
    """The steps after which the length is checked: at first seldom, then ever more often."""
    percent, gap, checks = FIRST, FIRST, set()
    while percent < 100:
        checks.add(-(-percent * steps // 100))
        gap = max(gap - SHRINK, SHORTEST)
        percent += gap
    return checks - {steps}
