"""Non-inferiority test: is a model worse than another one by more than a margin, on the same images?"""

import math
from statistics import NormalDist

from robusttune.measuring.checks import Check, Checks, Verdict
from robusttune.measuring.compare import Comparison, compared, key_of, measured_alike, paired_rows
from robusttune.measuring.gate import NO_ATTACK, attacks_at, check_labelled, doubts_of, trained_radius, unnamed
from robusttune.measuring.record import Record, described
from robusttune.measuring.records import Records
from robusttune.measuring.requirements import METRICS, ROBUST, Requirement, margins_of

Z = NormalDist().inv_cdf(0.95)  # of one-sided tests at 5%
# Images by which the difference is moved toward the one that is tested. Without this, up to 9% of tests err where few images
# differ (exact probabilities for 60 to 1,000 images and margins of 1 to 5 points), with it 5%.
CONTINUITY = 0.5


def not_worse(first: Records, second: Records, *margins: str) -> Checks:
    """Check whether the second model loses more accuracy against the first than a margin, image by image.

    Each check is a non-inferiority test at 5% on the difference of two accuracies on the same images. It is *met* where a loss
    of more than the margin is excluded, *not met* where such a loss is shown, and *cannot tell* where the images are too few for
    either. "robust" is the accuracy under the worst of those attacks at one radius that both models were measured with; where sanity
    checks speak against believing it of a model, which may then withstand less, no verdict rests on that.

    Args:
        first, second: the Records of both models, before and after a change, as `evaluate` returned them.
        margins: such as "robust:0.01", for the loss of one point, or "robust@linf:8/255:0.01", "clean:0.02".

    Raises:
        ValueError: a margin cannot be read, there is no common image or measurement, or the models were trained at different
            radii and the margin names none.

    Source: score test of a difference of paired proportions, Tango 1998, Statistics in Medicine 17, 891-908, with a correction
    for continuity.
    """
    wanted = margins_of(margins)
    for records in (first, second):
        check_labelled(records)
    pairs = paired_rows(first, second)
    return Checks(_check(first, second, margin, pairs) for margin in wanted)


def score(
    only_first: float, only_second: float, images: float, difference: float, *, continuity: float = CONTINUITY
) -> float:
    """Return the z-statistic of Tango's score test, for the hypothesis that the second accuracy minus the first is `difference`.

    It is above 0 if the measured difference is larger.

    Args:
        only_first, only_second: images that only this model classifies correctly.
        images: all images.
        difference: between -1 and 1.
        continuity: images by which the measured difference is moved toward this one, as its values come in steps.

    Source: Tango 1998, equations 6 to 8.

    Example:
        >>> round(score(9, 1, 100, 0.0, continuity=0), 4), round(-8 / 10**0.5, 4)  # McNemar's statistic
        (-2.5298, -2.5298)
    """
    slope = only_first + only_second + difference * (only_second - only_first) - 2 * images * difference
    # It is a square where only_second is 0, which rounding may leave a little below 0.
    root = math.sqrt(max(0.0, slope**2 + 8 * images * only_first * difference * (1 - difference)))
    lost = (slope + root) / (4 * images)  # the most likely share of images that only the first gets right
    variance = max(0.0, (2 * lost + difference * (1 - difference)) / images)
    distance = (only_second - only_first) / images - difference
    distance = math.copysign(max(0.0, abs(distance) - continuity / images), distance)
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance) if distance else 0.0


def bounds(only_first: int, only_second: int, images: int) -> tuple[float, float]:
    """Return the lower and the upper bound of the difference of both accuracies, each at 95%, one-sided.

    Example:
        >>> [round(each, 4) for each in bounds(0, 0, 1000)]
        [-0.0036, 0.0036]
    """
    middle = (only_second - only_first) / images
    return (
        _crossing(only_first, only_second, images, -1.0, middle, Z),
        _crossing(only_first, only_second, images, 1.0, middle, -Z),
    )


def _crossing(only_first: int, only_second: int, images: int, outside: float, inside: float, z: float) -> float:
    """Find the difference at which the statistic is z, between one outside the interval and one inside."""
    for _ in range(60):
        between = (outside + inside) / 2
        if abs(score(only_first, only_second, images, between)) >= abs(z):
            outside = between
        else:
            inside = between
    return inside


def _check(first: Records, second: Records, margin: Requirement, pairs: list[tuple[int, int]]) -> Check:
    ours, theirs, what = _answers(first, second, margin)
    test = compared(what, ours, theirs, pairs)
    z = score(test.only_first, test.only_second, test.images, -margin.limit)
    low, high = bounds(test.only_first, test.only_second, test.images)
    verdict = Verdict.MET if z >= Z else Verdict.NOT_MET if z <= -Z else Verdict.CANNOT_TELL
    said = _says(margin, test, (low, high), verdict)
    # A lower accuracy of this model would turn the verdict.
    model, records = ("second", second) if verdict is Verdict.MET else ("first", first)
    doubts = doubts_of(records) if margin.metric == ROBUST and verdict is not Verdict.CANNOT_TELL else []
    if doubts:
        verdict = Verdict.CANNOT_TELL
        said += f"; but sanity speaks against believing the number of the {model}: {', '.join(doubts)}"
    return Check(
        margin.text,
        verdict,
        f"difference in {what}",
        test.second - test.first,
        (low, high),
        -margin.limit,
        test.images,
        said,
    )


def _says(margin: Requirement, test: Comparison, interval: tuple[float, float], verdict: Verdict) -> str:
    difference, (low, high) = test.second - test.first, interval
    points = f"{100 * margin.limit:g} point{'s' * (round(100 * margin.limit, 9) != 1)}"
    ends = {
        Verdict.MET: f"a loss of more than {points} is excluded",
        Verdict.NOT_MET: f"a loss of more than {points} is shown",
        Verdict.CANNOT_TELL: f"a loss of more than {points} is neither shown nor excluded{_needed(margin, test)}",
    }
    return (
        f"{margin.text}: {test.what} was {100 * test.first:.2f}% and is {100 * test.second:.2f}% on the same {test.images:,} images "
        f"({100 * difference:+.2f} points, one-sided 95% bounds {100 * low:+.2f} and {100 * high:+.2f}; only the first is right on "
        f"{test.only_first}, only the second on {test.only_second}): {ends[verdict]}"
    )


def _needed(margin: Requirement, test: Comparison) -> str:
    """Say how many images would exclude the loss if all shares stayed as they are; "" if none would."""
    first, second, images = test.only_first, test.only_second, test.images
    z = score(first, second, images, -margin.limit, continuity=0)
    if z <= 0:
        return ""
    times = (Z / z) ** 2  # the statistic grows with the square root of the number of images, but for the continuity
    while score(times * first, times * second, times * images, -margin.limit) < Z:
        times *= 1.01
    return f"; about {math.ceil(times * images):,} images would exclude it at this difference"


def _answers(first: Records, second: Records, margin: Requirement) -> tuple[tuple[bool, ...], tuple[bool, ...], str]:
    """Return for each image of both models whether the answer is right, and what was measured in words.

    Raises:
        ValueError: there is no such measurement that both have.
    """
    if margin.metric != ROBUST:
        evaluation, metric = METRICS[margin.metric]
        found = [_first_known(records, evaluation, metric) for records in (first, second)]
        if found[0] is None or found[1] is None:
            raise ValueError(
                f"{margin.text!r} needs the {metric} of {evaluation} with the answer to each image, which the "
                f"{'first' if found[0] is None else 'second'} Records do not hold: evaluate both models with {evaluation}"
            )
        return found[0], found[1], "accuracy on unchanged images"
    _check_one_radius(first, second, margin)
    found_here, found_there = (
        [each for each in attacks_at(records, margin) if each.right] for records in (first, second)
    )
    here, there = map(Records, measured_alike(found_here, found_there))
    if all(each.evaluation in NO_ATTACK for each in here):
        raise ValueError(
            f"{margin.text!r} needs an attack that both models met with the same settings, and the answer to each image: evaluate "
            "both with sweep or strong, at the same radius"
        )
    setting = here[0].setting
    names = ", ".join(dict.fromkeys(each.evaluation for each in here))
    at = described({"eps": setting["eps"]}).replace("=", " ")
    what = f"accuracy under the worst of the {len(set(map(key_of, here)))} attacks that both met ({names}) at {setting['norm']} {at}"
    return _right(here.worst()), _right(there.worst()), what


def _first_known(records: Records, evaluation: str, metric: str) -> tuple[bool, ...] | None:
    found = (each.right for each in records if (each.evaluation, each.metric) == (evaluation, metric))
    return next((right for right in found if right is not None), None)


def _right(record: Record) -> tuple[bool, ...]:
    assert record.right is not None
    return record.right


def _check_one_radius(first: Records, second: Records, margin: Requirement) -> None:
    """Raise a ValueError for two models that were trained at different radii, where the margin names none."""
    if margin.norm is not None:
        return
    radii = trained_radius(first), trained_radius(second)
    if None in radii:
        raise ValueError(unnamed(margin))
    if radii[0] != radii[1]:
        raise ValueError(
            f"{margin.text!r} is at the radius of the training, but the first is of {radii[0]} and the second of {radii[1]}: write "
            f"the radius, such as 'robust@linf:8/255{margin.text.replace(ROBUST, '', 1)}'"
        )
