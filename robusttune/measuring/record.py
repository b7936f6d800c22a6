"""Record: one measured number with its setting and its 95% interval."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeAlias

from robusttune.measuring.intervals import wilson
from robusttune.run.folder import as_json
from robusttune.run.provenance import digest
from robusttune.run.settings import shown_radius

RADII = ("eps", "step_size")
SINGLE = ("right", "answers", "images_key")  # attributes of a Record about single images
SOME = 64  # images by which sets of images are told apart
AGREEMENT = "agreement"
# Metrics of the share of images that a model answers right, or, where there are no labels, as a teacher does.
ANSWERED = ("accuracy", AGREEMENT)

# What a number depends on, by name: values of JSON, which readers compare and format as the type they know them to have.
Setting: TypeAlias = Mapping[str, Any]

logger = logging.getLogger("robusttune")


@dataclass(frozen=True)
class Record:
    """One measured number.

    Attributes:
        evaluation: the name in `robusttune.evaluations` of the evaluation that measured it.
        metric: the metric's name, such as "accuracy".
        value: the number; accuracies are shares from 0 to 1.
        images: the number of images it was measured on.
        interval: its 95% interval.
        setting: everything that the number depends on: norm, eps, attack, steps, seed.
        right: for each image whether the answer was right, in the order of `Records.hashes`; None for numbers that do not
            count single images.
        answers: for each image the class that the model answers, in the same order: under attack the wrong one that an
            attack found first, and the image's label where none did; None if it was not kept.
        images_key: a key of these images, which Records write; "" if they are not known.
    """

    evaluation: str
    metric: str
    value: float
    images: int
    interval: tuple[float, float]
    setting: Setting = field(default_factory=dict)
    right: tuple[bool, ...] | None = field(default=None, repr=False, compare=False)
    answers: tuple[int, ...] | None = field(default=None, repr=False, compare=False)
    images_key: str = field(default="", repr=False, compare=False)


def accuracy(
    evaluation: str,
    correct: int,
    images: int,
    setting: Setting | None = None,
    *,
    metric: str = "accuracy",
    right: Iterable[bool] | None = None,
    answers: Iterable[int] | None = None,
) -> Record:
    """Return the Record of a share of correct answers, with its Wilson interval.

    Args:
        evaluation: the name of the evaluation.
        correct, images: the number of correct answers, and of all images.
        setting: everything that the number depends on.
        metric: the metric's name.
        right: for each image of this process whether the answer is right.
        answers: for each of these images the class that the model answers.

    Raises:
        ValueError: there are no images.

    Example:
        >>> accuracy("clean", 90, 100).interval
        (0.8256..., 0.9447...)
    """
    if images < 1:
        raise ValueError(f"{evaluation} saw no images: the loader is empty")
    single = None if right is None else tuple(bool(answer) for answer in right)
    given = None if answers is None else tuple(int(answer) for answer in answers)
    return Record(
        evaluation, metric, correct / images, images, wilson(correct, images), dict(setting or {}), single, given
    )


def hits(answers: Sequence[int], labels: Sequence[int]) -> list[bool]:
    """Return for each image whether the answer is its label.

    Example:
        >>> hits([3, 1], [3, 2])
        [True, False]
    """
    return [answer == label for answer, label in zip(answers, labels, strict=True)]


def balanced(evaluation: str, classes: Sequence[tuple[int, int]], setting: Setting | None = None) -> Record:
    """Return the Record of the balanced accuracy: the mean of the classes' accuracies.

    Each end of the interval is the outer end of two intervals. One combines the intervals of the classes by the method of Zou and
    Donner for sums, doi:10.1002/sim.3095: right for few classes, too narrow on one side for many. The other is Wilson's interval
    for the effective sample size: too narrow if one class has far fewer images.

    Args:
        evaluation: the name of the evaluation.
        classes: for each class (correct answers, images).
        setting: everything that the number depends on.

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
    trials = _independent_trials(classes, mean)
    low, high = wilson(mean * trials, trials)
    interval = (max(0.0, min(mean - below, low)), min(1.0, max(mean + above, high)))
    return Record(evaluation, "balanced accuracy", mean, images, interval, dict(setting or {}))


def _independent_trials(classes: Sequence[tuple[int, int]], mean: float) -> float:
    """Return the effective sample size of a balanced accuracy: the number of independent trials with the same variance.

    A class's accuracy is moved toward the mean by two images, so that a class with only right answers has a variance, too.
    """
    if not 0 < mean < 1:
        return len(classes) ** 2 / math.fsum(1 / images for _, images in classes)
    moved = [(correct + 2 * mean) / (images + 2) for correct, images in classes]
    variance = math.fsum(share * (1 - share) / images for share, (_, images) in zip(moved, classes, strict=True))
    return mean * (1 - mean) * len(classes) ** 2 / variance


def repeated(evaluation: str, right: Sequence[float], times: float, setting: Setting | None = None) -> Record:
    """Return the Record of the mean accuracy over several versions of each image.

    Answers to versions of one image are not independent trials. The interval is Wilson's for the number of independent
    trials that would vary as much as the images' shares do (Kish's effective sample size).

    Args:
        evaluation: the name of the evaluation.
        right: (sum, sum of squares, number) over images of the number of versions answered right.
        times: the number of versions of each image; where their weights differ, the number of equal ones that is as good.
        setting: everything that the number depends on.

    Raises:
        ValueError: there are no images.

    Example:
        >>> repeated("corruptions", [50, 500, 10], 10).interval  # half of the images always right: 10 trials, not 100
        (0.2365..., 0.7634...)
    """
    total, squares, count = right
    images = round(count)
    if images < 1:
        raise ValueError(f"{evaluation} saw no images: the loader is empty")
    share = min(1.0, total / (images * times))  # weights of versions may sum to a little more than 1
    variance = squares / (images * times**2) - share**2
    binomial = images * share * (1 - share)
    # If all answers are right, or all are wrong, the variance between images is unknown.
    trials = min(binomial / max(variance, 1e-12), images * times) if binomial > 0 else images
    return Record(evaluation, "accuracy", share, images, wilson(share * trials, trials), dict(setting or {}))


def is_check(record: Record) -> bool:
    """Return True for a check that a model passes or fails, as those of `sanity`: its value is no accuracy."""
    return "ok" in record.setting


def named(label: int, classes: Sequence[str]) -> str:
    """Return the name of a class, or its number where the name is not known.

    Example:
        >>> named(1, ["cat", "dog"]), named(1, ())
        ('dog', '1')
    """
    return classes[label] if 0 <= label < len(classes) else str(label)


def percent(value: float) -> str:
    """Format a share as a percentage with one decimal."""
    return f"{100 * value:.1f}%"


def described(setting: Setting, classes: Sequence[str] = ()) -> str:
    """Format a setting in one line: a class by its name, radii as people write them; whether a check passed is left out.

    Example:
        >>> described({"class": 0, "eps": 8 / 255, "level": 1 / 3}, ["cat", "dog"])
        'class=cat, eps=8/255, level=0.3333'
    """
    return ", ".join(f"{key}={_written(key, value, classes)}" for key, value in setting.items() if key != "ok")


def _written(key: str, value: object, classes: Sequence[str]) -> str:
    if key == "class" and isinstance(value, int):
        return named(value, classes)
    if not isinstance(value, float):
        return str(value)
    return shown_radius(value) if key in RADII else f"{value:.4g}"


def cells_of(record: Record, classes: Sequence[str]) -> list[object]:
    """Return the cells of a Record in the table of Records: evaluation, metric, value, 95% interval, images, setting."""
    low, high = record.interval
    value, interval = percent(record.value), f"{100 * low:.1f}–{percent(high)}"
    if is_check(record):
        value, interval = "pass" if record.setting["ok"] else "fail", "–"
    return [record.evaluation, record.metric, value, interval, record.images, described(record.setting, classes)]


def plain(record: Record, classes: Sequence[str]) -> dict[str, Any]:
    """Return a Record as values that JSON can hold, with the name of its class."""
    setting, label = dict(record.setting), record.setting.get("class")
    if isinstance(label, int) and label < len(classes):
        setting["class name"] = named(label, classes)
    return {**numbers_of(record), "interval": list(record.interval), "setting": setting}


def of_same_images(records: Sequence[Record], hashes: Sequence[str]) -> list[Record]:
    """Write into Records of which images their answers are; leave the answers out, with a warning, where they are of different ones.

    Args:
        records: with answers or without.
        hashes: of the images of all of them, sorted; () where they are not known, as in a list of several Records.
    """
    answered = [record.right is not None or record.answers is not None for record in records]
    if hashes:
        some = [hashes[round(row * (len(hashes) - 1) / SOME)] for row in range(SOME + 1)]
        key = digest([f"{len(hashes)} {some}".encode()])
        known = [not has or each.images_key == key for each, has in zip(records, answered, strict=True)]
        return [
            each if is_known else replace(each, images_key=key) for each, is_known in zip(records, known, strict=True)
        ]
    keys = {each.images_key for each, has in zip(records, answered, strict=True) if has and each.images_key}
    if len(keys) < 2:
        return list(records)
    logger.warning(
        "Records of %d different sets of images were joined: their answers to single images are left out, as they belong to different "
        "images; evaluate all on the same images to combine attacks or to compare models",
        len(keys),
    )
    return [
        replace(each, right=None, answers=None) if has else each for each, has in zip(records, answered, strict=True)
    ]


def equal(first: object, second: object) -> bool:
    """Return True for the same value; floats are compared to 9 digits."""
    if isinstance(first, int | float) and isinstance(second, int | float):
        return math.isclose(first, second, rel_tol=1e-9, abs_tol=1e-12)
    return bool(first == second)


def numbers_of(record: Record) -> dict[str, object]:
    """Return a Record as a dict of values that JSON can hold, without what it holds of single images; objects become words."""
    record = with_plain_numbers(record)
    numbers = {each.name: getattr(record, each.name) for each in fields(record) if each.name not in SINGLE}
    return {**as_json(numbers), "interval": record.interval}


def with_plain_numbers(record: Record) -> Record:
    """Return a Record whose numbers and flags are Python's: those of numpy and torch are no JSON."""
    setting = {
        key: value.item() if getattr(value, "ndim", None) == 0 else value for key, value in record.setting.items()
    }
    value, low, high = (float(each) for each in (record.value, *record.interval))
    return replace(record, value=value, images=int(record.images), interval=(low, high), setting=setting)
