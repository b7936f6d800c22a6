"""The learning rate, the radius and the length of a run."""

import math
from dataclasses import dataclass

WARM_UP = 0.05
RAMP = (0.0, 0.25)
LATE = 0.75


def rate_factor(progress: float) -> float:
    """The share of the peak learning rate at a run's progress from 0 to 1: a short linear rise, then half a cosine.

    Example:
        >>> rate_factor(0.05), round(rate_factor(1.0), 12)
        (1.0, 0.0)
    """
    if progress < WARM_UP:
        return max(progress, 1e-3) / WARM_UP
    share = (progress - WARM_UP) / (1 - WARM_UP)
    return 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def radius_factor(progress: float) -> float:
    """The share of the radius at a run's progress from 0 to 1: it grows to all of it in the first quarter.

    Source: after arXiv:2509.23325, for models that are not robust to begin with; the breakpoints are ours: rises that
    ended later left less robust accuracy in short runs.

    Example:
        >>> radius_factor(0.0), radius_factor(0.125), radius_factor(0.75)
        (0.0, 0.5, 1.0)
    """
    low, high = RAMP
    return min(max((progress - low) / (high - low), 0.0), 1.0)


@dataclass
class Plan:
    """How long a run is, and how far it has come: whatever comes first of epochs, steps and seconds ends it."""

    epochs: int
    max_steps: int | None
    batches: int | None
    time_budget: float | None = None
    accumulate: int = 1
    taken: int = 0
    elapsed: float = 0.0

    @property
    def steps(self) -> int | None:
        """The number of optimiser steps, as far as it is known; where seconds end the run, an upper bound."""
        epoch = math.ceil(self.batches / self.accumulate) if self.batches else None
        known = [n for n in (self.max_steps, self.epochs * epoch if epoch else None) if n is not None]
        return min(known) if known else None

    @property
    def over(self) -> bool:
        """Whether the steps or the seconds are used up."""
        out_of_time = self.time_budget is not None and self.elapsed >= self.time_budget
        return out_of_time or (self.max_steps is not None and self.taken >= self.max_steps)

    def progress(self, epoch: int, step: int) -> float:
        """The share of the run that is done, after so many steps of an epoch."""
        # Where no length is known, an epoch is thought to be long.
        done = self.taken / self.steps if self.steps else (epoch + step / (step + 100)) / self.epochs
        if self.time_budget is not None:
            done = max(done, self.elapsed / self.time_budget)
        return min(done, 1.0)
