"""One optimiser step: accumulated batches, learning rate, radius, precision, clipping, weight averaging."""

from torch import Tensor, nn

from robusttune.model.devices import device_of
from robusttune.run import distributed
from robusttune.threat import ThreatModel
from robusttune.training.batch import LoadedBatch
from robusttune.training.ema import Average
from robusttune.training.micro_batches import fitting_counted, merged_terms, micro_batches
from robusttune.training.precision import Precision
from robusttune.training.recipe import Recipe
from robusttune.training.robust_loss import RobustLoss
from robusttune.training.schedule import Progress, radius_factor, rate_factor


class Stepper:
    """Takes a run's optimiser steps, each over `accumulate` batches.

    Args:
        robust_loss: the loss whose parameters are trained.
        progress: the progress of the run, to which each step is added.
        recipe: builds the optimiser and the scheduler.
        precision: the number format of forward and backward passes.
        ramp: let the radius grow from 0 as `radius_factor` says.
        micro_batch: images that go through the model at once; None for all of a batch.
    """

    def __init__(
        self,
        robust_loss: RobustLoss,
        progress: Progress,
        recipe: Recipe,
        *,
        precision: Precision,
        ramp: bool = False,
        micro_batch: int | None = None,
    ) -> None:
        self.robust_loss, self.progress, self.ramp = robust_loss, progress, ramp
        self.average = Average(robust_loss, recipe.ema) if recipe.ema else None
        self.recipe, self.precision = recipe, precision
        self.threat, self.device = robust_loss.threat, device_of(robust_loss)
        self.module = distributed.replicated(robust_loss)
        self.optimizer, self.scheduler = recipe.build(robust_loss, progress.length.epochs)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.scaler = precision.scaler(self.device)
        self.waiting, self.micro_batch = 0, micro_batch

    def take(self, batch: LoadedBatch, *, done: float, last: bool) -> dict[str, Tensor]:
        """Add the gradient of one batch, take a step if it completes a group of `accumulate` batches, and return its loss terms.

        Args:
            done: the share of the run that is done, from 0 to 1.
            last: whether this is the last batch of its epoch.
        """
        self._schedule(done)
        steps_now = last or self.waiting + 1 == self.progress.length.accumulate
        parts = micro_batches(batch, self.micro_batch, self.robust_loss.model)
        terms = []
        for number, part in enumerate(parts, 1):
            share = len(part.images) / len(batch.images)
            alone = distributed.unsynchronised(self.module, not steps_now or number < len(parts))
            with alone, fitting_counted(self.robust_loss, batch, self.micro_batch):
                terms.append(self._backward(part, share))
        self.waiting += 1
        if steps_now:
            self._step()
        return merged_terms(terms, [len(part.images) for part in parts])

    def _backward(self, batch: LoadedBatch, share: float) -> dict[str, Tensor]:
        """Add the gradient of a part of a batch, weighted by its share of the batch; return the part's loss terms."""
        images, labels, unlabeled = batch.to(self.device)
        extra = {} if unlabeled is None else {"unlabeled": unlabeled}
        with self.precision.autocast(self.device):
            out: dict[str, Tensor] = self.module(images, labels, **extra)
        self.scaler.scale(out["loss"] * (share / self.progress.length.accumulate)).backward()  # type: ignore[no-untyped-call]
        return out

    def _step(self) -> None:
        if self.recipe.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.robust_loss.parameters(), self.recipe.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.drop()
        self.progress.taken += 1
        if self.average is not None:
            self.average.update()

    def _schedule(self, done: float) -> None:
        """Set the learning rate and the radius for this share of the run."""
        if self.scheduler is None:
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * rate_factor(done)
        if self.ramp:
            self.robust_loss.threat = ThreatModel(self.threat.norm, self.threat.eps * radius_factor(done))

    def finish(self) -> None:
        """Take a step with accumulated gradients that no step has used: those of an incomplete group at the end of an epoch."""
        if self.waiting:
            distributed.average(each.grad for each in self.robust_loss.parameters() if each.grad is not None)
            self._step()

    def drop(self) -> None:
        """Drop accumulated gradients that no step has used."""
        self.waiting = 0
        self.optimizer.zero_grad(set_to_none=True)

    def restart(self) -> None:
        """Clear the state of the optimiser and the average, after the weights have been replaced."""
        self.optimizer.state.clear()
        if self.average is not None:
            self.average = Average(self.robust_loss, self.average.decay)
