"""Whether a rotation head tells images of another kind from the model's own."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from robusttune.data.batches import errors_at, images_of
from robusttune.data.pixels import check_space
from robusttune.measuring.intervals import Z95, wilson
from robusttune.measuring.ood_score import strangeness
from robusttune.measuring.record import Record
from robusttune.measuring.subject import Subject

__all__ = ["ood"]

KEPT = 0.95


def ood(subject: Subject, *, others: Any = None) -> list[Record]:
    """How well images from elsewhere are told from the loader's own: AUROC, and the share taken for own at 95% of those.

    An image's score is the mean cross-entropy of the rotation head over all turns, less how far the class probabilities are
    from uniform: it is high for images on which both heads are at a loss.

    Args:
        subject: the model, its images, and heads with a rotation task.
        others: a loader of images (with or without labels) that the model should not know, of the same shape.

    Raises:
        ValueError: no images from elsewhere or no rotation head was given, one of the loaders is empty, or their images are in
            different spaces.

    Source: Hendrycks et al., arXiv:1906.12340, section 4.2.
    """
    if others is None:
        raise ValueError("ood compares with images from elsewhere: pass functools.partial(ood, others=their_loader)")
    own = [strangeness(subject, pixels) for pixels, _ in subject.batches()]
    strange = [strangeness(subject, pixels) for pixels in _others(subject, others)]
    if not own or not strange:
        raise ValueError("ood needs images in both loaders, but one of them is empty")
    inside, outside = torch.cat(own).double(), torch.cat(strange).double()
    area = _area(inside, outside)
    error = _standard_error(area, len(inside), len(outside))
    images = len(inside) + len(outside)
    interval = (max(0.0, area - Z95 * error), min(1.0, area + Z95 * error))
    threshold = torch.quantile(inside, KEPT)
    taken = int((outside <= threshold).sum())
    setting = {"own": len(inside), "others": len(outside), "score": "rotation and class"}
    return [
        Record("ood", "AUROC", area, images, interval, setting),
        Record("ood", "FPR95", taken / len(outside), len(outside), wilson(taken, len(outside)), setting),
    ]


def _others(subject: Subject, loader: Any) -> Iterator[Tensor]:
    """Pixels (N,C,H,W) on [0,1] of images from elsewhere, in the space of the loader's own.

    Raises:
        ValueError: they are in another space.
    """
    space = subject.pixels
    for number, batch in enumerate(loader):
        with errors_at(f"batch {number + 1} of others"):
            images = images_of(batch)
            inside = images.is_floating_point() and bool(((images >= 0) & (images <= 1)).all())
            if number == 0 and space.normalized and inside:
                raise ValueError(f"images lie within [0, 1], but in the loader {space}: give both the same transform")
            check_space(space, images)
        yield space.pixels(images.to(subject.device))


def _area(inside: Tensor, outside: Tensor) -> float:
    """How often an image from elsewhere has the higher score than one of the own; equal ones count half."""
    order = torch.sort(inside).values
    below = torch.searchsorted(order, outside, right=False)
    up_to = torch.searchsorted(order, outside, right=True)
    return float((below + up_to).double().mean() / (2 * len(inside)))


def _standard_error(area: float, first: int, second: int) -> float:
    """Of the area under the curve: Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747."""
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (second - 1) * (one - area**2) + (first - 1) * (two - area**2)
    return math.sqrt(max(0.0, spread) / (first * second))
