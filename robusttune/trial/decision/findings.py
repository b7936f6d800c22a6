"""Significance tests of each arm against the baselines, Holm-corrected, and of all pairs of arms."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robusttune.trial.decision.metrics import Accuracies, Metric
from robusttune.trial.decision.significance import (
    FEWEST_SEEDS,
    LEVEL,
    Differences,
    Numbers,
    differences,
    half_width,
    holm,
    images_part,
)


@dataclass(frozen=True)
class Comparison:
    """Difference of an arm from a baseline on one metric.

    Attributes:
        arm, baseline: by name.
        metric: on which both are compared.
        value: accuracy of the arm minus that of the baseline, mean over seeds.
        low, high: its 95% interval, of this difference by itself; of a need, in a trial with looks, of all needs at every look.
        p: p-value, Holm-corrected for all comparisons with baselines in the trial; of a need, in a trial with looks, by itself.
        real: True if p is below 5%: at most one trial in twenty has a false one.
        exploratory: True for one that no need of the trial named, in a trial with looks: it is corrected beside the others
            of its kind alone, and has to be confirmed.
    """

    arm: str
    baseline: str
    metric: Metric
    value: float
    low: float
    high: float
    p: float
    real: bool
    exploratory: bool = False


@dataclass(frozen=True)
class Findings:
    """Significance tests of a trial with three seeds or more; without comparisons for fewer seeds.

    Attributes:
        comparisons: the comparisons of every other arm with each baseline.
        apart: True if two arms differ significantly (A, A, N), corrected for all pairs and metrics.
        images_part: standard deviation of a difference that comes from the images (N,), the median over pairs of arms.
        answered: True if more seeds would not change the answer to the trial's needs.
    """

    comparisons: tuple[Comparison, ...]
    apart: NDArray[np.bool_]
    images_part: Numbers
    answered: bool = False

    def comparison(self, arm: str, baseline: str, metric: Metric) -> Comparison | None:
        """Return the comparison of an arm with a baseline; None if there is none."""
        key = (arm, baseline, metric)
        return next((test for test in self.comparisons if (test.arm, test.baseline, test.metric) == key), None)


class _Row(NamedTuple):
    """An arm and a baseline by number, the row of their pair, and the sign of its difference."""

    arm: int
    baseline: int
    pair: int
    sign: int


def leaders(measured: Accuracies, findings: Findings, column: int) -> list[int]:
    """List the arms, by number, without a significant difference from the best mean on a metric, from high to low."""
    order = [int(arm) for arm in (-measured.values[:, :, column].mean(axis=1)).argsort(kind="stable")]
    return [arm for arm in order if arm == order[0] or not findings.apart[order[0], arm, column]]


def findings_of(measured: Accuracies, baselines: Sequence[str]) -> Findings:
    """Test all arms against the baselines and each other, by t tests over seeds, corrected for their number."""
    pairs = list(combinations(range(len(measured.arms)), 2))
    images = images_part(measured.right, measured.spread, pairs)
    typical = np.sqrt(np.median(images, axis=0))
    apart = np.zeros((len(measured.arms), len(measured.arms), len(measured.metrics)), dtype=bool)
    if len(measured.seeds) < FEWEST_SEEDS:
        return Findings((), apart, typical)
    untrained = measured.untrained
    tests = differences(measured.values, pairs, untrained=untrained, images=images, count=measured.images)
    for (first, second), p in zip(pairs, holm(tests.p), strict=True):
        apart[first, second] = apart[second, first] = p < LEVEL
    return Findings(_comparisons(measured, baselines, pairs, tests), apart, typical)


def _comparisons(
    measured: Accuracies, baselines: Sequence[str], pairs: Sequence[tuple[int, int]], tests: Differences
) -> tuple[Comparison, ...]:
    rows = _rows(measured, baselines, pairs)
    if not rows:
        return ()
    p_values = holm(tests.p[[row.pair for row in rows]])
    half = half_width(tests.error, tests.freedom)
    comparisons = []
    for row, p_of_row in zip(rows, p_values, strict=True):
        for column, metric in enumerate(measured.metrics):
            value = row.sign * float(tests.value[row.pair, column])
            width, p = float(half[row.pair, column]), float(p_of_row[column])
            arm, baseline = measured.arms[row.arm], measured.arms[row.baseline]
            comparisons.append(Comparison(arm, baseline, metric, value, value - width, value + width, p, p < LEVEL))
    return tuple(comparisons)


def _rows(measured: Accuracies, baselines: Sequence[str], pairs: Sequence[tuple[int, int]]) -> list[_Row]:
    """List each arm with each baseline; two baselines are compared once."""
    rows = []
    for baseline, arm in against(measured, baselines):
        forward = (baseline, arm) in pairs
        pair = pairs.index((baseline, arm) if forward else (arm, baseline))
        rows.append(_Row(arm, baseline, pair, 1 if forward else -1))
    return rows


def against(measured: Accuracies, baselines: Sequence[str]) -> list[tuple[int, int]]:
    """List the numbers of each baseline with every other arm; two baselines are compared once."""
    numbers = [measured.arms.index(baseline) for baseline in baselines]
    return [
        (baseline, arm)
        for position, baseline in enumerate(numbers)
        for arm in range(len(measured.arms))
        if arm not in numbers[: position + 1]
    ]
