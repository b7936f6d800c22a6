"""Running means of an epoch's loss terms."""

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from robusttune.data.batches import hard_labels, sent
from robusttune.run import distributed

READ_EVERY = 10
FIRST_BROKEN, IN_A_ROW, LEFT_OUT = "first broken", "broken in a row", "left out"
COUNTS = (FIRST_BROKEN, IN_A_ROW, LEFT_OUT)


class Meter:
    """Means of an epoch's loss terms and robust accuracy over the batches with a finite loss; only reading waits for the device."""

    def __init__(self) -> None:
        self.steps = 0
        self.images = 0
        self.sums: dict[str, Tensor] = {}
        self.latest: deque[tuple[Tensor, int]] = deque(maxlen=READ_EVERY)  # correct answers, and images, of a batch

    def add(self, out: Mapping[str, Tensor], labels: Tensor | None, images: int) -> None:
        """Add the loss terms of one batch, which has this number of images."""
        terms = {key: value.detach() * images for key, value in out.items() if key != "output"}
        if labels is not None:
            answers = out["output"].detach().argmax(1)
            terms["robust accuracy"] = (answers == hard_labels(sent(labels, answers.device))).sum()
            self.latest.append((terms["robust accuracy"], images))
        broken = ~torch.isfinite(out["loss"].detach())
        self._count(broken, images)
        for key, value in terms.items():
            finite = torch.where(broken, torch.zeros_like(value), value)
            self.sums[key] = self.sums[key] + finite if key in self.sums else finite
        self.steps += 1
        self.images += images

    def _count(self, broken: Tensor, images: int) -> None:
        """Count a batch whose loss is not finite, without waiting for the device."""
        none = torch.zeros_like(broken, dtype=torch.int64)
        number = torch.full_like(broken, self.steps + 1, dtype=torch.float64)
        first = torch.where(broken, number, torch.inf)
        self.sums[FIRST_BROKEN] = torch.minimum(self.sums.get(FIRST_BROKEN, first), first)
        self.sums[IN_A_ROW] = torch.where(broken, self.sums.get(IN_A_ROW, none) + 1, none)
        self.sums[LEFT_OUT] = self.sums.get(LEFT_OUT, none) + broken * images

    def broken(self) -> tuple[int | None, int]:
        """Return the number of the first batch whose loss was not finite, None for none, and how many were so up to now in a row."""
        first = float(self.sums.get(FIRST_BROKEN, torch.tensor(torch.inf)))
        return (int(first), int(self.sums.get(IN_A_ROW, 1))) if math.isfinite(first) else (None, 0)

    def forget_broken(self) -> None:
        """Clear the number of the first batch with a loss that is not finite, after the run has recovered."""
        if self.sums:
            self.sums[FIRST_BROKEN] = torch.full_like(self.sums[FIRST_BROKEN], torch.inf)

    def means(self) -> dict[str, float]:
        """Return the mean of each term over the images of this process; NaN if no loss was finite."""
        images = self.images - int(self.sums.get(LEFT_OUT, 0))
        return {
            key: float(value) / images if images else math.nan for key, value in self.sums.items() if key not in COUNTS
        }

    def shared_means(self, device: torch.device) -> dict[str, float]:
        """Return the mean of each term over all processes.

        Raises:
            ValueError: there was no batch.
        """
        if not self.steps:
            raise ValueError(
                "the epoch took no step, so nothing was learnt: all its batches hold one image, which batch norm cannot normalise: "
                "let the loader yield larger batches"
            )
        means = self.means()
        totals = distributed.summed(means.values(), device)
        return {key: total / distributed.world() for key, total in zip(means, totals, strict=True)}

    def withstood(self) -> list[tuple[int, int]]:
        """Return how many images of how many were classified correctly under attack: in the epoch, and in its last batches.

        Empty where the images had no labels, or a loss was not finite.
        """
        if not self.latest or int(self.sums[LEFT_OUT]):
            return []
        rights, images = zip(*self.latest, strict=True)
        return [(int(self.sums["robust accuracy"]), self.images), (int(sum(rights)), sum(images))]

    def state_dict(self) -> dict[str, object]:
        """Return the state, for `load_state_dict`."""
        return {"steps": self.steps, "images": self.images, "sums": dict(self.sums)}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Restore the state that `state_dict` returned, with its sums on a device."""
        self.steps, self.images = state["steps"], state["images"]
        self.sums = {key: value.to(device) for key, value in state["sums"].items()}
