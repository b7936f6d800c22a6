"""Detection of out-of-distribution images by a rotation head and the classifier."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from robusttune.data import sharding
from robusttune.data.batches import errors_at, images_of
from robusttune.data.pixels import check_space
from robusttune.evaluations import Z95, Passes, Record, Subject, checked_by, takes, wilson
from robusttune.measuring.intervals import ranks_around
from robusttune.measuring.ood_score import check_heads, ood_score, turns_of
from robusttune.measuring.passes import count_images
from robusttune.measuring.subject import NotFinite
from robusttune.run import distributed
from robusttune.types import Loader

__all__ = ["ood"]

KEPT = 0.95
HALVINGS = 60


def _check(subject: Subject, *, others: Loader | None) -> None:
    if others is None:
        raise ValueError("ood compares with images from elsewhere: pass functools.partial(ood, others=their_loader)")
    check_heads(subject)


def _passes(subject: Subject, *, others: Loader | None) -> Passes | None:
    count = None if others is None else count_images(others, getattr(others, "batch_size", None) or 0)
    each = 1 + len(turns_of(subject.shape))
    return Passes(each, once=count * each) if count else None


@checked_by(_check)
@takes(_passes)
def ood(subject: Subject, *, others: Loader | None = None) -> list[Record]:
    """Measure how well the score separates other images from the loader's: AUROC, and the false positive rate FPR95.

    An image's score is the mean cross-entropy of the rotation head over all rotations, minus the divergence of the uniform
    distribution from the class probabilities: it is high for images on which both are unsure. FPR95 is the share of other
    images that are accepted at the threshold that accepts 95% of the loader's images; its interval counts that this threshold
    is known from these images only, and has no upper limit with fewer than 72 of them.

    Args:
        subject: the model, its images, and heads with a rotation task.
        others: a loader of images (with or without labels) that the model should not know, of the same shape.

    Raises:
        ValueError: there are no other images or no rotation head, one of the loaders is empty, or their images are in
            different spaces.
        NotFinite: the answers to some of them are not finite.

    Source: Hendrycks et al., arXiv:1906.12340, section 4.2.
    """
    _check(subject, others=others)
    assert others is not None
    inside = _scores(subject, (pixels for pixels, _ in subject.batches()))
    outside = _scores(subject, _pixels_of(subject, others))
    if not len(inside) or not len(outside):
        raise ValueError("ood needs images in both loaders, but one of them is empty: pass loaders that yield images")
    if not bool(torch.isfinite(torch.cat([inside, outside])).all()):
        raise NotFinite(
            "the answers of the model or of its rotation head hold NaN or infinite values: look for broken weights"
        )
    return _records(inside, outside)


def _scores(subject: Subject, batches: Iterator[Tensor]) -> Tensor:
    """Return the scores (N,) of this process's batches of pixels (N,C,H,W), and of those of the others."""
    own = [score for pixels in batches for score in ood_score(subject, pixels).tolist()]
    return torch.tensor([score for part in distributed.gathered(own) for score in part], dtype=torch.float64)


def _records(inside: Tensor, outside: Tensor) -> list[Record]:
    """Return AUROC and FPR95, from the scores of the loader's images and of others."""
    area, accepted = _area(inside, outside), int((outside <= torch.quantile(inside, KEPT)).sum())
    setting = {"own": len(inside), "others": len(outside), "score": "rotation and class"}
    share, interval = accepted / len(outside), _interval_of_share(accepted, inside, outside)
    return [
        Record("ood", "AUROC", area, len(inside) + len(outside), _interval(area, len(inside), len(outside)), setting),
        Record("ood", "FPR95", share, len(outside), interval, setting),
    ]


def _interval(area: float, inside: int, outside: int) -> tuple[float, float]:
    """Return the 95% score interval of the AUROC; it has a width even if all scores of one kind exceed those of the other.

    Source: Newcombe 2006, Statistics in Medicine 25, 559-573, method 4.
    """
    ends = []
    for beyond in (0.0, 1.0):
        within = area
        for _ in range(HALVINGS if area != beyond else 0):
            middle = (beyond + within) / 2
            far = abs(area - middle) >= Z95 * _standard_error(middle, inside, outside)
            beyond, within = (middle, within) if far else (beyond, middle)
        ends.append(within)
    return ends[0], ends[1]


def _interval_of_share(accepted: int, inside: Tensor, outside: Tensor) -> tuple[float, float]:
    """Return the 95% interval of the false positive rate FPR95; its threshold is an estimate, too, from the loader's images.

    Both uncertainties are combined by the method of Zou and Donner for sums, doi:10.1002/sim.3095.
    """
    share, (low, high) = accepted / len(outside), wilson(accepted, len(outside))
    thresholds = [-math.inf, *torch.sort(inside).values.tolist(), math.inf]
    least, most = (float((outside <= thresholds[rank]).double().mean()) for rank in ranks_around(KEPT, len(inside)))
    return (
        max(0.0, share - math.hypot(share - low, share - least)),
        min(1.0, share + math.hypot(high - share, most - share)),
    )


def _pixels_of(subject: Subject, others: Loader) -> Iterator[Tensor]:
    """Yield the other images as pixels (N,C,H,W) on [0,1]; each process gets its share.

    Raises:
        ValueError: they are in another space than the loader's images.
    """
    space = subject.pixels
    for number, batch in sharding.own_share(enumerate(sharding.whole(others))):
        with errors_at(f"batch {number + 1} of others"):
            images = images_of(batch)
            inside = images.is_floating_point() and bool(((images >= 0) & (images <= 1)).all())
            if number == 0 and space.normalized and inside:
                raise ValueError(f"images lie within [0, 1], but in the loader {space}: give both the same transform")
            check_space(space, images)
        yield space.pixels(images.to(subject.device))


def _area(inside: Tensor, outside: Tensor) -> float:
    """Return the area under the ROC curve (AUROC): how often an outside score exceeds an inside one; equal ones count half."""
    ordered = torch.sort(inside).values
    below = torch.searchsorted(ordered, outside, right=False)
    up_to = torch.searchsorted(ordered, outside, right=True)
    return float((below + up_to).double().mean() / (2 * len(inside)))


def _standard_error(area: float, inside: int, outside: int) -> float:
    """Return the standard error of the area: Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747."""
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (outside - 1) * (one - area**2) + (inside - 1) * (two - area**2)
    return math.sqrt(max(0.0, spread) / (inside * outside))
