"""One measured number with its setting and its 95% interval."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from robusttune.measuring.intervals import wilson


@dataclass(frozen=True)
class Record:
    """One measured number.

    Attributes:
        evaluation: what measured it, a name in `robusttune.evaluations`.
        metric: what it is, such as "accuracy".
        value: the number; accuracies are shares from 0 to 1.
        images: how many images it was measured on.
        interval: its 95% interval.
        setting: all that the number depends on: norm, eps, attack, steps, seed.
        right: for each image whether the answer was right, in the order of `Records.hashes`; None where a number is not
            of single images.
    """

    evaluation: str
    metric: str
    value: float
    images: int
    interval: tuple[float, float]
    setting: Mapping[str, Any] = field(default_factory=dict)
    right: tuple[bool, ...] | None = field(default=None, repr=False, compare=False)


def accuracy(
    evaluation: str,
    correct: int,
    images: int,
    setting: Mapping[str, Any] | None = None,
    *,
    metric: str = "accuracy",
    right: Iterable[bool] | None = None,
) -> Record:
    """The Record of a share of correct answers, with its Wilson interval; `right` tells of each image.

    Raises:
        ValueError: there are no images.
    """
    if images < 1:
        raise ValueError(f"{evaluation} saw no images: the loader is empty")
    single = None if right is None else tuple(bool(each) for each in right)
    return Record(evaluation, metric, correct / images, images, wilson(correct, images), dict(setting or {}), single)


def balanced(evaluation: str, classes: Sequence[tuple[int, int]], setting: Mapping[str, Any] | None = None) -> Record:
    """The Record of the mean of the classes' own accuracies, each given as (correct, images).

    The interval combines those of the classes, as Zou and Donner, doi:10.1002/sim.3095, do for sums.

    Example:
        >>> record = balanced("clean", [(9, 10), (1, 2)])
        >>> record.value, record.images
        (0.7, 12)
    """
    shares = [correct / images for correct, images in classes]
    bounds = [wilson(correct, images) for correct, images in classes]
    mean = math.fsum(shares) / len(shares)
    below = math.hypot(*(share - low for share, (low, _) in zip(shares, bounds, strict=True))) / len(shares)
    above = math.hypot(*(high - share for share, (_, high) in zip(shares, bounds, strict=True))) / len(shares)
    images = sum(images for _, images in classes)
    interval = (max(0.0, mean - below), min(1.0, mean + above))
    return Record(evaluation, "balanced accuracy", mean, images, interval, dict(setting or {}))


def repeated(evaluation: str, right: Sequence[int], times: int, setting: Mapping[str, Any] | None = None) -> Record:
    """The Record of the mean accuracy over several looks at each image, given how often each image was right.

    Looks at one image are no independent trials: the interval is Wilson's for as many trials as would scatter as much as
    the images' own shares do (Kish's effective number).

    Args:
        right: (sum, sum of squares, number) over images of how many looks were right.
        times: looks at each image.

    Example:
        >>> repeated("corruptions", [50, 500, 10], 10).interval  # half of the images always right: 10 trials, not 100
        (0.2365..., 0.7634...)
    """
    total, squares, images = right
    if images < 1:
        raise ValueError(f"{evaluation} saw no images: the loader is empty")
    share = total / (images * times)
    scatter = squares / (images * times**2) - share**2
    alone = images * share * (1 - share)
    # Of images that are all right, or all wrong, nothing is known of how they scatter.
    trials = min(alone / max(scatter, 1e-12), images * times) if alone > 0 else images
    return Record(evaluation, "accuracy", share, images, wilson(share * trials, trials), dict(setting or {}))


def percent(value: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{100 * value:.1f}%"


def described(setting: Mapping[str, Any]) -> str:
    """A setting in one line."""
    return ", ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in setting.items()
    )
