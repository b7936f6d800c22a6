"""The loop of a run: epochs, batches, validation, checkpoints."""

import time
from collections.abc import Callable, Iterator
from itertools import islice, repeat
from typing import Any

from torch import Tensor

from robusttune.attacks import Attack
from robusttune.data import sharding
from robusttune.data.epochs import Batches
from robusttune.model.checks import has_batch_norm
from robusttune.model.teacher import Teacher
from robusttune.run import distributed, randomness
from robusttune.run.log import Journal
from robusttune.training.batch import LoadedBatch
from robusttune.training.checkpoints import Checkpoints
from robusttune.training.display import Display, displayed
from robusttune.training.labelling import Labelling
from robusttune.training.meter import Meter
from robusttune.training.recovery import Recovery
from robusttune.training.schedule import LATE
from robusttune.training.settings import EpochFacts
from robusttune.training.step import Stepper
from robusttune.training.validation import Validation, validate


class Training:
    """One run: `run()` takes all the steps that are left.

    Args:
        stepper: takes the steps.
        batches, journal, validation, checkpoints: of the run.
        unlabeled: batches of images for the pretext losses alone, beside the labelled ones; None for none.
        teacher: labels those images of `batches` that have no label; None for none.
        labelling: facts about its labels.
        late: the attack of the last quarter of the run; None for no other.
        on_epoch: called with the facts of each epoch.
    """

    def __init__(
        self,
        stepper: Stepper,
        batches: Batches,
        journal: Journal,
        *,
        validation: Validation,
        unlabeled: Batches | None = None,
        teacher: Teacher | None = None,
        labelling: Labelling | None = None,
        late: Attack | None = None,
        checkpoints: Checkpoints,
        on_epoch: Callable[[EpochFacts], object] | None = None,
    ) -> None:
        self.stepper, self.batches, self.journal = stepper, batches, journal
        self.validation, self.checkpoints, self.late, self.on_epoch = validation, checkpoints, late, on_epoch
        self.unlabeled, self.teacher, self.labelling = unlabeled, teacher, labelling
        self.drawn_from = [getattr(each, "loader", None) for each in (batches, unlabeled, validation)]
        self.progress, self.robust_loss = stepper.progress, stepper.robust_loss
        self.meter, self.recovery, self.epoch, self.consumed = Meter(), Recovery(), 0, 0
        self.epoch_states: dict[str, Any] = {}

    @property
    def over(self) -> bool:
        """True when the epochs, the steps or the seconds are used up, and the last epoch has been judged and written."""
        return self.epoch >= self.progress.length.epochs or (self.progress.over and not self.consumed)

    def run(self, *, show_bar: bool) -> None:
        """Take all the steps that are left.

        Raises:
            FloatingPointError: the run diverges, and does so at lower learning rates, too; see `Recovery`.
            ValueError: the loader has no more batches, or a batch does not fit.
        """
        self.recovery.begin(self)
        with displayed(self, show_bar) as display:
            while not self.over:
                self._train_epoch(display)
                self._end_epoch()

    def weights(self) -> dict[str, Tensor]:
        """Return the weights that `harden` would return if the run ended here: the moving average, where there is one."""
        average = self.stepper.average
        return dict(self.robust_loss.state_dict() if average is None else average.weights())

    def _train_epoch(self, display: Display) -> None:
        began = time.perf_counter()
        for _ in iter(()) if self.progress.over else self.train_batches():
            now = time.perf_counter()
            self.progress.elapsed, began = self._agreed(self.progress.elapsed + now - began), now
            if self.stepper.waiting == 0:
                self.recovery.after_step(self)
                display.after_step()
                self.checkpoints.save_if_due(self)
            if self.progress.over:
                break
        self.stepper.finish()

    def train_batches(self) -> Iterator[int]:
        """Train on the batches that are left of the epoch, one at each `next`; yields its number of images."""
        for batch in self._batches_left():
            self.consumed += 1
            if len(batch.images) == 1 and has_batch_norm(self.robust_loss.model):
                continue  # batch norm cannot normalise the one image that a last batch may hold
            done = self._agreed(self.progress.share(self.epoch, self.meter.steps))
            if self.late is not None and done >= LATE and not self.validation.fell_back:
                self.robust_loss.attack = self.late
            out = self.stepper.take(batch, done=done, last=self.consumed == self.batches.count)
            self.meter.add(out, batch.labels, len(batch.images))
            yield len(batch.images)

    def _batches_left(self) -> Iterator[LoadedBatch]:
        """Yield the batches of the epoch that were not taken before a resume."""
        now = randomness.random_states(*self.drawn_from)
        sharding.set_epoch(self.batches.loader, self.epoch)
        if self.consumed:
            randomness.restore_random_states(self.epoch_states, *self.drawn_from)
        else:
            self.epoch_states = now
        at, device, more = self.epoch, self.stepper.device, self.unlabeled
        least = 1 + has_batch_norm(self.robust_loss.model)
        unlabeled: Iterator[Tensor | None] = repeat(None) if more is None else more.endless(least, at, device=device)
        labelled = self.batches.epoch(at, classes=self.robust_loss.classifier.classes, device=device)
        pairs = zip(labelled, unlabeled, strict=False)
        if self.consumed:
            # The order of images was drawn when the epoch began; everything after depends on the states of now.
            next(islice(pairs, self.consumed - 1, self.consumed), None)
            randomness.restore_random_states(now, *self.drawn_from)
        yield from (LoadedBatch(*batch, extra) for batch, extra in pairs)

    def _end_epoch(self) -> None:
        average, number = self.stepper.average, self.epoch + 1
        distributed.average([*self.robust_loss.model.buffers(), *(average.shadow.values() if average else ())])
        facts: EpochFacts = {"epoch": number, "step": self.progress.taken}
        facts |= self.recovery.means(self)
        facts |= {"lr": self.stepper.optimizer.param_groups[0]["lr"], "eps": self.robust_loss.threat.eps}
        if self.validation.is_due(number, last=number == self.progress.length.epochs or self.progress.over):
            facts |= validate(self, facts.get("robust accuracy"))
        facts |= self.recovery.end_epoch(self, facts)
        self.journal.write({**facts, "seconds": self.progress.elapsed})
        if self.stepper.scheduler is not None:
            self.stepper.scheduler.step()
        self.epoch, self.consumed, self.meter = number, 0, Meter()
        self.checkpoints.save(self, outputs=True)
        if self.on_epoch is not None:
            self.on_epoch(facts)

    def _agreed(self, value: float) -> float:
        """Return the first process's value where seconds end the run: each has clocks of its own, and all must do the same."""
        if self.progress.length.time_budget is None:
            return value
        return distributed.agreed(value, self.stepper.device)
