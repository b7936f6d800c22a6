"""Auto-PGD: ascent with momentum and steps that halve where they do not help."""

from typing import NamedTuple

import torch
from torch import Tensor

from robusttune.attacks import LossOf, ThreatModel, declares, differentiable, gradient_toward
from robusttune.norms import per_image

__all__ = ["apgd"]

FIRST, SHRINK, SHORTEST = 22, 3, 6  # percent of the steps between two checkpoints
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
    """Search images (N,C,H,W) that the threat model allows, and return the one with the highest loss for each image.

    Steps have momentum and are long at first. At fixed checkpoints, an image whose loss rose too seldom, or whose best
    loss did not rise, restarts from its best candidate with half the step length.

    Args:
        loss_of: images -> one loss per image (N,); the images do not influence each other.
        images: (N,C,H,W) in [0,1]; not changed.
        threat: the ball and the box.
        generator: source of the random start.
        steps: gradient steps; one more forward evaluates the last candidates. Two are enough in training.
        step_size: length of the first steps in the threat's norm, in pixel units; None for 2·eps.
        rho: the share of steps that must raise the loss for the length to stay.
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
        search = _Search(loss_of, start, 2 * threat.eps if step_size is None else float(step_size))
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
    """Candidates (N,C,H,W), their losses (N,) and gradients (N,C,H,W)."""

    images: Tensor
    loss: Tensor
    gradient: Tensor


class _Search:
    """The state of each image's search: candidates, best candidates, and step lengths."""

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
        """Move the search to these candidates; after the last step, no gradient is needed."""
        point = _measured(self.loss_of, images, with_gradient=not last)
        self.taken += 1
        self.rises = self.rises + (point.loss > self.here.loss)
        self.before, self.here = self.here.images, point
        self.best = _chosen(point.loss > self.best.loss, point, self.best)

    def check(self, rho: float) -> None:
        """Halve the steps of images without progress since the last checkpoint, and restart them from their best."""
        seldom = self.rises < rho * self.taken
        no_progress = ~self.halved & (self.best.loss <= self.highest)
        self.halved = seldom | no_progress
        self.length = torch.where(per_image(self.halved, self.length), self.length / 2, self.length)
        self.here = _chosen(self.halved, self.best, self.here)
        self.taken, self.rises, self.highest = 0, torch.zeros_like(self.rises), self.best.loss


def _random_start(images: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
    """Draw a random point (N,C,H,W) at distance eps from each image, and clamp it to the box."""
    noise = threat.geometry.noise(images, threat.eps, generator)
    size = per_image(threat.geometry.size(noise), noise)
    return threat.project(images + noise * (threat.eps / torch.where(size > 0, size, 1.0)), images)


def _measured(loss_of: LossOf, images: Tensor, *, with_gradient: bool = True) -> _Point:
    """Compute the losses and, unless it is switched off, the gradients of candidates."""
    if not with_gradient:
        with torch.no_grad():
            return _Point(images, loss_of(images), torch.zeros_like(images))
    images = images.detach().requires_grad_()
    loss = loss_of(images)
    return _Point(images.detach(), loss.detach(), gradient_toward(images, loss))


def _chosen(first: Tensor, one: _Point, other: _Point) -> _Point:
    """Choose `one` for the images where `first` (N,) is True, and `other` for the rest."""
    return _Point(*(torch.where(per_image(first, a), a, b) for a, b in zip(one, other, strict=True)))


def _checks(steps: int) -> set[int]:
    """Return the steps of the checkpoints, whose distance shrinks."""
    percent, gap, checks = FIRST, FIRST, set()
    while percent < 100:
        checks.add(-(-percent * steps // 100))
        gap = max(gap - SHRINK, SHORTEST)
        percent += gap
    return checks - {steps}
