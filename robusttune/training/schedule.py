"""The learning rate, the radius and the length of a run."""

import math
from dataclasses import dataclass

from robusttune.training.settings import RunLength

WARM_UP = 0.05
RAMP = (0.0, 0.25)
LATE = 0.75


def rate_factor(progress: float) -> float:
    """Return the share of the peak learning rate at a run's progress from 0 to 1: a short linear warm-up, then half a cosine.

    Example:
        >>> rate_factor(0.05), round(rate_factor(1.0), 12)
        (1.0, 0.0)
    """
    if progress < WARM_UP:
        return max(progress, 1e-3) / WARM_UP
    share = (progress - WARM_UP) / (1 - WARM_UP)
    return 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def radius_factor(progress: float) -> float:
    """Return the share of the radius at a run's progress from 0 to 1: it grows to all of it in the first quarter.

    Source: after arXiv:2509.23325, for models that are not robust at the start; the breakpoints are ours: ramps that
    ended later left less robust accuracy in short runs.

    Example:
        >>> radius_factor(0.0), radius_factor(0.125), radius_factor(0.75)
        (0.0, 0.5, 1.0)
    """
    low, high = RAMP
    return min(max((progress - low) / (high - low), 0.0), 1.0)


@dataclass
class Progress:
    """The progress of a run.

    Attributes:
        length: the length of the run.
        batches: the number of batches of an epoch, in this process; None if the loader does not say.
        taken: optimiser steps so far.
        elapsed: seconds of training so far.
    """

    length: RunLength
    batches: int | None
    taken: int = 0
    elapsed: float = 0.0

    @property
    def steps(self) -> int | None:
        """The number of optimiser steps of the run, if it is known; an upper bound where seconds end the run."""
        epoch = math.ceil(self.batches / self.length.accumulate) if self.batches else None
        known = [n for n in (self.length.max_steps, self.length.epochs * epoch if epoch else None) if n is not None]
        return min(known) if known else None

    @property
    def over(self) -> bool:
        """True when the steps or the seconds are used up."""
        budget, most = self.length.time_budget, self.length.max_steps
        return (budget is not None and self.elapsed >= budget) or (most is not None and self.taken >= most)

    def share(self, epoch: int, step: int) -> float:
        """Return the share of the run that is done, from 0 to 1, after this step of this epoch."""
        # Where the length is not known, an epoch is assumed to be long.
        done = self._by_steps(epoch) if self.steps else (epoch + step / (step + 100)) / self.length.epochs
        if self.length.time_budget is not None:
            done = max(done, self.elapsed / self.length.time_budget)
        return min(done, 1.0)

    def _by_steps(self, epoch: int) -> float:
        """Return the share by the steps taken, within that of this epoch: an epoch may have more or fewer than its first batch tells."""
        epochs, most, expected = self.length.epochs, self.length.max_steps, self.steps or 1
        done = max(self.taken / expected, epoch / epochs)
        if most is None or expected < most:
            done = max(min(done, (epoch + 1) / epochs), self.taken / (most or math.inf))
        return done
