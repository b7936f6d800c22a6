"""How long a run is, how far it has come, and what it has seen."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from robusttune.batches import hard

WARM_UP = 0.05
READ_EVERY = 10


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


@dataclass
class Plan:
    """How long a run is, and how far it has come."""

    epochs: int
    max_steps: int | None
    batches: int | None
    taken: int = 0

    @property
    def steps(self) -> int | None:
        """The number of steps, as far as it is known."""
        known = [n for n in (self.max_steps, self.epochs * self.batches if self.batches else None) if n is not None]
        return min(known) if known else None

    @property
    def over(self) -> bool:
        """Whether the largest number of steps was taken."""
        return self.max_steps is not None and self.taken >= self.max_steps

    def progress(self, epoch: int, step: int) -> float:
        """The share of the run that is done."""
        if self.steps:
            return min(self.taken / self.steps, 1.0)
        return (epoch + step / (step + 100)) / self.epochs  # no length is known: an epoch is thought to be long


class Meter:
    """Means of an epoch's loss terms and robust accuracy; the device is waited for only when they are read."""

    def __init__(self) -> None:
        self.steps = 0
        self.images = 0
        self.sums: dict[str, Tensor] = {}

    def add(self, out: Mapping[str, Tensor], labels: Tensor) -> None:
        """Count one step."""
        right = (out["output"].detach().argmax(1) == hard(labels)).sum()
        terms = {key: value.detach() * len(labels) for key, value in out.items() if key != "output"}
        for key, value in {**terms, "robust accuracy": right}.items():
            self.sums[key] = self.sums[key] + value if key in self.sums else value.clone()
        self.steps += 1
        self.images += len(labels)

    def means(self) -> dict[str, float]:
        """The mean of each term.

        Raises:
            FloatingPointError: a loss was not finite.
        """
        means = {key: float(value) / max(self.images, 1) for key, value in self.sums.items()}
        if not math.isfinite(means.get("loss", 0.0)):
            raise FloatingPointError(
                f"the loss was not finite in the last {READ_EVERY} steps before step {self.steps} of the epoch ({means}): "
                "lower lr=, pass clip_grad=1.0, or look for broken images; the model has its old weights back"
            )
        return means
