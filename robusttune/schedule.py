"""How long a run is, how far it has come, and what it has seen."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robusttune.batches import hard

WARM_UP = 0.05
RAMP = (0.0, 0.25)
LATE = 0.75
READ_EVERY = 10
FIRST_BROKEN = "first broken"


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


class Meter:
    """Means of an epoch's loss terms and robust accuracy; the device is waited for only when they are read."""

    def __init__(self) -> None:
        self.steps = 0
        self.images = 0
        self.sums: dict[str, Tensor] = {}

    def add(self, out: Mapping[str, Tensor], labels: Tensor | None, images: int) -> None:
        """Count one batch of so many images."""
        terms = {key: value.detach() * images for key, value in out.items() if key != "output"}
        if labels is not None:
            terms["robust accuracy"] = (out["output"].detach().argmax(1) == hard(labels)).sum()
        # The number of the first batch whose loss is not finite, without waiting for the device.
        broken = ~torch.isfinite(out["loss"].detach())
        number = torch.full_like(broken, self.steps + 1, dtype=torch.float64)
        first = torch.where(broken, number, torch.inf)
        self.sums[FIRST_BROKEN] = torch.minimum(self.sums[FIRST_BROKEN], first) if self.sums else first
        for key, value in terms.items():
            self.sums[key] = self.sums[key] + value if key in self.sums else value.clone()
        self.steps += 1
        self.images += images

    def means(self) -> dict[str, float]:
        """The mean of each term over the images of this process.

        Raises:
            FloatingPointError: a loss was not finite.
        """
        broken = float(self.sums.get(FIRST_BROKEN, torch.tensor(torch.inf)))
        if math.isfinite(broken):
            raise FloatingPointError(
                f"the loss was not finite in batch {broken:.0f} of the epoch: lower lr=, pass clip_grad=1.0, or look for "
                "broken images in that batch; the model has its old weights back"
            )
        return {key: float(value) / max(self.images, 1) for key, value in self.sums.items() if key != FIRST_BROKEN}

    def state_dict(self) -> dict[str, object]:
        """All that `load_state_dict` needs to go on."""
        return {"steps": self.steps, "images": self.images, "sums": dict(self.sums)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.steps, self.images, self.sums = state["steps"], state["images"], dict(state["sums"])
