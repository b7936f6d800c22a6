"""What a trial says of its arms beside those that they have to beat, and which arms it cannot tell apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from robusttune.trial.decision.metrics import Measured, Need
from robusttune.trial.decision.significance import (
    FEWEST_SEEDS,
    LEVEL,
    Differences,
    Numbers,
    differences,
    half_width,
    holm,
    images_variance,
)


@dataclass(frozen=True)
class Claim:
    """How an arm does beside a baseline, for one need.

    Attributes:
        arm, baseline: by name.
        need: what both are measured by.
        value: accuracy of the arm less that of the baseline, mean over seeds.
        low, high: its 95% interval, of this difference by itself.
        p: after Holm's correction for all comparisons with baselines in the trial.
        real: whether p is below 5%, so that chance makes a false one in at most one trial of twenty.
    """

    arm: str
    baseline: str
    need: Need
    value: float
    low: float
    high: float
    p: float
    real: bool


@dataclass(frozen=True)
class Findings:
    """What can be said of the arms, with three seeds or more; nothing with fewer.

    Attributes:
        claims: of every other arm beside each baseline.
        apart: whether two arms can be told apart (A, A, N), corrected for all pairs and needs.
        images_part: standard deviation of a difference that comes from the images (N,), the median over pairs of arms.
    """

    claims: tuple[Claim, ...]
    apart: NDArray[np.bool_]
    images_part: Numbers

    def claim(self, arm: str, baseline: str, need: Need) -> Claim | None:
        """The claim about an arm beside a baseline."""
        asked = (arm, baseline, need)
        return next((each for each in self.claims if (each.arm, each.baseline, each.need) == asked), None)


def leaders(measured: Measured, found: Findings, column: int) -> list[int]:
    """The arms, by number, that cannot be told from the one with the highest mean for a need, from high to low."""
    order = [int(arm) for arm in (-measured.values[:, :, column].mean(axis=1)).argsort(kind="stable")]
    return [arm for arm in order if arm == order[0] or not found.apart[order[0], arm, column]]


def findings(measured: Measured, baselines: Sequence[str]) -> Findings:
    """The claims about all arms beside the baselines, by a t test over seeds, corrected for their number."""
    pairs = list(combinations(range(len(measured.arms)), 2))
    images = _images_part(measured, pairs)
    typical = np.sqrt(np.median(images, axis=0))
    apart = np.zeros((len(measured.arms), len(measured.arms), len(measured.needs)), dtype=bool)
    if len(measured.seeds) < FEWEST_SEEDS:
        return Findings((), apart, typical)
    untrained = measured.untrained
    found = differences(measured.values, pairs, untrained=untrained, images=images, count=measured.images)
    for (first, second), p in zip(pairs, holm(found.p), strict=True):
        apart[first, second] = apart[second, first] = p < LEVEL
    return Findings(_claims(measured, baselines, pairs, found), apart, typical)


def _claims(
    measured: Measured, baselines: Sequence[str], pairs: Sequence[tuple[int, int]], found: Differences
) -> tuple[Claim, ...]:
    arms, rows = measured.arms, []
    for number, baseline in enumerate(map(arms.index, baselines)):
        earlier = [arms.index(each) for each in baselines[:number]]
        for arm in range(len(arms)):
            if arm != baseline and arm not in earlier:
                forward = (baseline, arm) in pairs
                rows.append((baseline, arm, pairs.index((baseline, arm) if forward else (arm, baseline)), forward))
    if not rows:
        return ()
    p = holm(found.p[[row for _, _, row, _ in rows]])
    half = half_width(found.error, found.freedom)
    made = []
    for number, (baseline, arm, row, forward) in enumerate(rows):
        for column, need in enumerate(measured.needs):
            value = float(found.value[row, column]) * (1 if forward else -1)
            width, chance = float(half[row, column]), float(p[number, column])
            bounds = (value - width, value + width)
            made.append(Claim(arms[arm], arms[baseline], need, value, *bounds, chance, chance < LEVEL))
    return tuple(made)


def _images_part(measured: Measured, pairs: Sequence[tuple[int, int]]) -> Numbers:
    """The variance of each difference (P, N) that comes from the images."""
    made = np.empty((len(pairs), len(measured.needs)))
    spread = (measured.spread**2).mean(axis=1)
    for column, right in enumerate(measured.right):
        for row, (first, second) in enumerate(pairs):
            # Where single images are not known, as though each arm had been measured on images of its own.
            apart = spread[first, column] + spread[second, column]
            made[row, column] = apart if right is None else images_variance(right[first], right[second])
    return made
