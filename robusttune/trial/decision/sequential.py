"""Group-sequential tests of a trial while seeds are added: the differences that are real, and whether it may stop."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robusttune.trial.decision.looks import nominal_levels
from robusttune.trial.decision.metrics import Accuracies
from robusttune.trial.decision.significance import (
    LEVEL,
    Differences,
    Numbers,
    differences,
    images_part,
    student,
)

LEAST_LEVEL = 1e-12  # level of a look that has nothing to spend, so that its interval is finite


@dataclass(frozen=True)
class Standing:
    """Comparisons after some looks, each array of shape (P, N): pairs of arms, metrics.

    Attributes:
        seeds: how many the last look saw.
        value: mean of the second arm's accuracy minus the first's.
        p: p-value of each by itself at the last look.
        low, high: an interval for the true difference that holds at every look, at the level at which it was tested.
        real: True if the difference is not chance: with all comparisons and looks, one trial in twenty has a false one.
        settled: True if it is real, or if a worthwhile gain is ruled out.
    """

    seeds: int
    value: Numbers
    p: Numbers
    low: Numbers
    high: Numbers
    real: NDArray[np.bool_]
    settled: NDArray[np.bool_]

    def answered(self, pairs: Sequence[tuple[int, int]]) -> bool:
        """Return True if the answer stands: on each metric, the arm that leads a baseline is really better, or all is settled.

        Args:
            pairs: those of the comparisons; the first arm of each is a baseline.
        """
        for baseline in {first for first, _ in pairs}:
            rows = [row for row, (first, _) in enumerate(pairs) if first == baseline]
            leads = self.value[rows].argmax(axis=0)
            columns = np.arange(self.value.shape[1])
            led = self.real[rows][leads, columns] & (self.value[rows][leads, columns] > 0)
            if not (led | self.settled[rows].all(axis=0)).all():
                return False
        return True


def standing(
    measured: Accuracies,
    pairs: Sequence[tuple[int, int]],
    looks: Sequence[int],
    *,
    worthwhile: float,
    comparisons: int | None = None,
    stop: bool = False,
) -> Standing:
    """Test the differences of pairs of arms, group-sequentially, at each look for which there are seeds.

    A difference that was real at a look stays so. Where one is, the others are tested at a larger level (Holm's step).

    Args:
        measured: accuracies of the arms, on the metrics to be tested alone; a look that needs more seeds than there are is
            left for later.
        pairs: (first, second) arms by number.
        looks: numbers of seeds after which the trial is looked at, rising; the level is shared out over all of them.
        worthwhile: the smallest gain that counts, a share.
        comparisons: number of comparisons to correct for, if more might have been made than these pairs and metrics.
        stop: leave out the looks after the first at which the answer stands.

    Raises:
        ValueError: there are fewer seeds than the first look needs.

    Source: Maurer and Bretz 2013, doi:10.1080/19466315.2013.807748, for Holm's step with several looks; Jennison and
        Turnbull 1989, JRSS B 51, for intervals that hold at every look.
    """
    seen = [look for look in looks if look <= len(measured.seeds)]
    if not seen:
        raise ValueError(
            f"there are {len(measured.seeds)} seeds, but the first look is after {looks[0]}: let it run on"
        )
    real = np.zeros((len(pairs), len(measured.metrics)), dtype=bool)
    for number, look in enumerate(seen, 1):
        tests, images = _tested(measured.part(seeds=look), pairs)
        shares = _shares(tests, images, look, looks)[:number]
        whole = comparisons or real.size
        levels, real = _holm(tests.p, shares, real, whole)
        levels = np.where(real, _nominal(LEVEL / whole, shares), levels)
        half = tests.error * student().isf(np.maximum(levels, LEAST_LEVEL) / 2, tests.freedom)
        settled = real | (tests.value + half < worthwhile)
        found = Standing(look, tests.value, tests.p, tests.value - half, tests.value + half, real, settled)
        if stop and found.answered(pairs):
            break
    return found


def _tested(measured: Accuracies, pairs: Sequence[tuple[int, int]]) -> tuple[Differences, Numbers]:
    images = images_part(measured.right, measured.spread, pairs)
    return (
        differences(measured.values, pairs, untrained=measured.untrained, images=images, count=measured.images),
        images,
    )


def _shares(tests: Differences, images: Numbers, seeds: int, looks: Sequence[int]) -> Numbers:
    """Return the share (L,P,N) of the last look's information that each look has, by the scatter that is known now."""
    of_a_seed = np.maximum(tests.error**2 - images, 0) * seeds
    known = np.stack([1 / np.maximum(of_a_seed / look + images, 1e-12) for look in looks])
    shares: Numbers = known / known[-1]
    return shares


def _holm(
    p: Numbers, shares: Numbers, before: NDArray[np.bool_], comparisons: int
) -> tuple[Numbers, NDArray[np.bool_]]:
    """Return the level (P,N) of each comparison at this look, and which are real now; those that were before stay so."""
    real = before.copy()
    while True:
        level = LEVEL / max(comparisons - int(real.sum()), 1)
        levels = _nominal(level, shares)
        now = real | (p < levels)
        if (now == real).all():
            return levels, real
        real = now


def _nominal(level: float, shares: Numbers) -> Numbers:
    """Return the level (P,N) of the last look, where all looks (L,P,N) of a comparison share a level."""
    of_each = shares.reshape(len(shares), -1).T.tolist()
    levels: Numbers = np.reshape([nominal_levels(level, each)[-1] for each in of_each], shares.shape[1:])
    return levels
