"""Running means of an epoch's loss terms."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from robusttune.data.batches import hard_labels
from robusttune.run import distributed

READ_EVERY = 10
FIRST_BROKEN = "first broken"


class Meter:
    """Means of an epoch's loss terms and robust accuracy; only reading them waits for the device."""

    def __init__(self) -> None:
        self.steps = 0
        self.images = 0
        self.sums: dict[str, Tensor] = {}

    def add(self, out: Mapping[str, Tensor], labels: Tensor | None, images: int) -> None:
        """Add the loss terms of one batch, which has this number of images."""
        terms = {key: value.detach() * images for key, value in out.items() if key != "output"}
        if labels is not None:
            terms["robust accuracy"] = (out["output"].detach().argmax(1) == hard_labels(labels)).sum()
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
        """Return the mean of each term over the images of this process.

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

    def shared_means(self, device: torch.device) -> dict[str, float]:
        """Return the mean of each term over all processes.

        Raises:
            FloatingPointError: a loss was not finite.
        """
        means = self.means()
        totals = distributed.summed(means.values(), device)
        return {key: total / distributed.world() for key, total in zip(means, totals, strict=True)}

    def state_dict(self) -> dict[str, object]:
        """Return the state, for `load_state_dict`."""
        return {"steps": self.steps, "images": self.images, "sums": dict(self.sums)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.steps, self.images, self.sums = state["steps"], state["images"], dict(state["sums"])
