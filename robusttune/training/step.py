"""One optimiser step: accumulated batches, learning rate, radius, precision, clipping, averaging."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from robusttune.model.checks import has_batch_norm
from robusttune.model.devices import device_of
from robusttune.run import distributed
from robusttune.threat import ThreatModel
from robusttune.training.ema import Average
from robusttune.training.precision import Precision
from robusttune.training.recipe import Recipe
from robusttune.training.robust_loss import RobustLoss
from robusttune.training.schedule import Plan, radius_factor, rate_factor


class Stepper:
    """Takes a run's optimiser steps, each over `plan.accumulate` batches.

    Args:
        robust_loss: whose parameters are trained.
        plan: how far the run has come; counted on here.
        recipe: makes the optimiser and the scheduler.
        precision: of forward and backward passes.
        ramp: let the radius grow from 0 as `radius_factor` says.
        average: a moving average to be moved after each step; None for none.
        micro_batch: images that go through the model at once; None for all of a batch.
    """

    def __init__(
        self,
        robust_loss: RobustLoss,
        plan: Plan,
        recipe: Recipe,
        *,
        precision: Precision,
        ramp: bool = False,
        average: Average | None = None,
        micro_batch: int | None = None,
    ) -> None:
        self.robust_loss, self.plan, self.ramp, self.average = robust_loss, plan, ramp, average
        self.clip_grad, self.precision = recipe.clip_grad, precision
        self.told = f"{recipe}; {precision.name}"
        self.threat = robust_loss.threat
        self.device = device_of(robust_loss)
        self.module = distributed.replicated(robust_loss)
        self.optimizer, self.scheduler = recipe.made(robust_loss, plan)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.scaler = precision.scaler(self.device)
        self.waiting, self.micro_batch = 0, micro_batch

    def take(
        self, images: Tensor, labels: Tensor | None, unlabeled: Tensor | None, *, done: float, last: bool
    ) -> dict[str, Tensor]:
        """Add one batch's gradient, and step if it was the last to be accumulated; the batch's loss terms.

        Args:
            done: the share of the run that is done.
            last: nothing comes after this batch in its epoch.
        """
        self._schedule(done)
        steps_now = last or self.waiting + 1 == self.plan.accumulate
        parts = _parts(images, labels, unlabeled, self._count(images, unlabeled))
        found = []
        for number, part in enumerate(parts, 1):
            share = len(part[0]) / len(images)
            with distributed.unsynchronised(self.module, not steps_now or number < len(parts)):
                found.append(self._backward(*part, share))
        out = found[0] if len(found) == 1 else _whole(found, [len(part[0]) for part in parts])
        self.waiting += 1
        if steps_now:
            self._step()
        return out

    def _count(self, images: Tensor, unlabeled: Tensor | None) -> int:
        """How many parts a batch is taken in."""
        if self.micro_batch is None:
            return 1
        least = 2 if has_batch_norm(self.robust_loss.model) else 1
        most = min(len(images), len(images if unlabeled is None else unlabeled)) // least
        return max(1, min(most, -(-len(images) // self.micro_batch)))

    def _backward(
        self, images: Tensor, labels: Tensor | None, unlabeled: Tensor | None, share: float
    ) -> dict[str, Tensor]:
        """Add the gradient of a part of a batch, of which it is this share; the part's loss terms."""
        images = images.to(self.device, non_blocking=True)
        labels = None if labels is None else labels.to(self.device, non_blocking=True)
        extra = {} if unlabeled is None else {"unlabeled": unlabeled.to(self.device, non_blocking=True)}
        with self.precision.autocast(self.device):
            out: dict[str, Tensor] = self.module(images, labels, **extra)
        self.scaler.scale(out["loss"] * (share / self.plan.accumulate)).backward()
        return out

    def drop(self) -> None:
        """Forget gradients that no step has used."""
        self.waiting = 0
        self.optimizer.zero_grad(set_to_none=True)

    def restart(self) -> None:
        """Forget what the optimiser and the average remember, as weights have been replaced."""
        self.optimizer.state.clear()
        if self.average is not None:
            self.average = Average(self.robust_loss, self.average.decay)

    def _step(self) -> None:
        if self.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.robust_loss.parameters(), self.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.drop()
        self.plan.taken += 1
        if self.average is not None:
            self.average.update()

    def _schedule(self, done: float) -> None:
        if self.scheduler is None:
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * rate_factor(done)
        if self.ramp:
            self.robust_loss.threat = ThreatModel(self.threat.norm, self.threat.eps * radius_factor(done))

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on, weights included."""
        return {
            "weights": self.robust_loss.state_dict(),
            "calls": self.robust_loss.calls,
            "ramp": self.ramp,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.robust_loss.load_state_dict(state["weights"])
        self.robust_loss.calls, self.ramp = state["calls"], state["ramp"]
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def _parts(
    images: Tensor, labels: Tensor | None, unlabeled: Tensor | None, count: int
) -> list[tuple[Tensor, Tensor | None, Tensor | None]]:
    """A batch in so many parts of nearly equal size."""
    chunks = [None if each is None else each.tensor_split(count) for each in (images, labels, unlabeled)]
    return [tuple(None if each is None else each[number] for each in chunks) for number in range(count)]  # type: ignore[misc]


def _whole(found: list[dict[str, Tensor]], images: list[int]) -> dict[str, Tensor]:
    """The loss terms of a batch, of those of its parts."""
    total = sum(images)
    return {
        key: torch.cat([out[key].detach() for out in found])
        if key == "output"
        else sum(
            (out[key].detach() * (count / total) for out, count in zip(found, images, strict=True)), torch.tensor(0.0)
        )
        for key in found[0]
    }
