"""A run over a loader: epochs, the images it is judged on, and what it goes on from after a kill."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from itertools import islice, repeat
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm.auto import tqdm

from robusttune.attacks import Attack
from robusttune.data import sharding
from robusttune.data.batches import Batches, check_classes
from robusttune.measuring.record import percent
from robusttune.model.checks import has_batch_norm
from robusttune.run import distributed, files, randomness
from robusttune.run import folder as run_folder
from robusttune.run.log import Journal
from robusttune.training.meter import READ_EVERY, Meter
from robusttune.training.schedule import LATE, RAMP
from robusttune.training.step import Stepper
from robusttune.training.validation import STEPS, Best, Score, collapsed, judge, score

logger = logging.getLogger("robusttune")

Batch = tuple[Tensor, Tensor | None, Tensor | None]


class Training:
    """One run: `run()` takes all the steps that are left.

    Args:
        stepper: takes the steps.
        batches: of the training loader.
        journal: told of each epoch.
        held: a loader of held-out images to judge each epoch by; None for no selection.
        unlabeled: batches of images for the pretext losses alone, beside the labelled ones; None for none.
        min_clean: see `Best`.
        fast: watch for the collapse of single-step training.
        late: the attack of the last quarter of the run; None for no other.
        judged: epochs from one judgement on held-out images to the next; the last one is always judged.
        folder: for checkpoints; None for none.
        every: optimiser steps between checkpoints, beside those at the end of each epoch.
        on_epoch: called with what is known after each epoch.
    """

    def __init__(
        self,
        stepper: Stepper,
        batches: Batches,
        journal: Journal,
        *,
        held: Any = None,
        unlabeled: Batches | None = None,
        min_clean: float | None = None,
        fast: bool = False,
        late: Attack | None = None,
        judged: int = 1,
        folder: Path | None = None,
        every: int | None = None,
        on_epoch: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.stepper, self.batches, self.journal = stepper, batches, journal
        self.held, self.unlabeled, self.fast, self.on_epoch, self.late = held, unlabeled, fast, on_epoch, late
        self.folder, self.every, self.judged = folder, every, judged
        self.plan, self.robust_loss = stepper.plan, stepper.robust_loss
        self.best = Best(min_clean)
        self.last: Score | None = None
        self.meter, self.epoch, self.consumed, self.fell_back = Meter(), 0, 0, False
        self.epoch_states: dict[str, Any] = {}
        self._epoch_began = 0.0

    def run(self, *, progress: bool) -> None:
        """Take all the steps that are left.

        Raises:
            FloatingPointError: the loss is not finite.
            ValueError: the loader ran dry, or a batch does not fit.
        """
        with tqdm(total=self.plan.steps, initial=self.plan.taken, unit="step", disable=not progress) as bar:
            while self.epoch < self.plan.epochs and not self.plan.over:
                self._take_epoch(bar)
                self._end_epoch()

    def weights(self) -> dict[str, Tensor]:
        """The weights that would be returned if the run ended here: the moving average, where there is one."""
        average = self.stepper.average
        return dict(self.robust_loss.state_dict() if average is None else average.weights())

    def _take_epoch(self, bar: Any) -> None:
        began = time.perf_counter()
        for _ in self.taking():
            now = time.perf_counter()
            self.plan.elapsed, began = self.plan.elapsed + now - began, now
            if self.stepper.waiting == 0:
                bar.update()
                if self.plan.taken % READ_EVERY == 0:
                    self._show(bar)
                if self.every and self.plan.taken % self.every == 0:
                    self.save()
            if self._over():
                break
        self.stepper.drop()

    def taking(self) -> Iterator[int]:
        """Take the batches that are left of the epoch, one whenever asked; how many images it had."""
        for images, labels, unlabeled in self._batches_left():
            self.consumed += 1
            if len(images) == 1 and has_batch_norm(self.robust_loss.model):
                continue  # batch norm cannot normalise the one image that a last batch may hold
            self._take(images, labels, unlabeled)
            yield len(images)

    def _take(self, images: Tensor, labels: Tensor | None, unlabeled: Tensor | None) -> None:
        if labels is not None and labels.device.type == "cpu":  # on an accelerator, reading them would make it wait
            check_classes(labels, self.robust_loss.classifier.classes)
        done = self.plan.progress(self.epoch, self.meter.steps)
        if self.plan.time_budget is not None:
            done = distributed.agreed(done, self.stepper.device)
        if self.late is not None and done >= LATE and not self.fell_back:
            self.robust_loss.attack = self.late
        out = self.stepper.take(images, labels, unlabeled, done=done, last=self.consumed == self.batches.count)
        self.meter.add(out, None if labels is None else labels.to(self.stepper.device), len(images))

    def _over(self) -> bool:
        if self.plan.time_budget is None:
            return self.plan.over
        return bool(distributed.agreed(float(self.plan.over), self.stepper.device))

    def _show(self, bar: Any) -> None:
        means = self.meter.means()
        bar.set_description(f"epoch {self.epoch + 1}/{self.plan.epochs}")
        rate = self.meter.images * distributed.world() / max(self.plan.elapsed - self._epoch_began, 1e-9)
        bar.set_postfix({**{key: f"{value:.3f}" for key, value in means.items()}, "images/s": f"{rate:.0f}"})

    def _end_epoch(self) -> None:
        average = self.stepper.average
        distributed.averaged([*self.robust_loss.model.buffers(), *(average.shadow.values() if average else ())])
        facts: dict[str, Any] = {"epoch": self.epoch + 1, "step": self.plan.taken, **self._means()}
        facts |= {"lr": self.stepper.optimizer.param_groups[0]["lr"], "eps": self.robust_loss.threat.eps}
        if self.held is not None and self._is_judged():
            facts |= {f"held-out {key}": value for key, value in asdict(self._judge(facts)).items()}
        self.journal.write({**facts, "seconds": self.plan.elapsed})
        if self.stepper.scheduler is not None:
            self.stepper.scheduler.step()
        self.epoch, self.consumed, self.meter, self._epoch_began = self.epoch + 1, 0, Meter(), self.plan.elapsed
        self.save(outputs=True)
        if self.on_epoch is not None:
            self.on_epoch(facts)

    def _is_judged(self) -> bool:
        number = self.epoch + 1
        return self._over() or number == self.plan.epochs or number % self.judged == 0

    def _means(self) -> dict[str, float]:
        """The epoch's mean terms, over all processes."""
        means = self.meter.means()
        totals = distributed.summed(means.values(), self.stepper.device)
        return {key: total / distributed.world() for key, total in zip(means, totals, strict=True)}

    def _judge(self, facts: Mapping[str, Any]) -> Score:
        """The score of what would be returned if the run ended here; the best is kept."""
        at_start = self.plan.progress(self.epoch, 0) * self.epoch / (self.epoch + 1)
        growing = self.stepper.ramp and at_start < RAMP[1]
        trained = None if growing else facts.get("robust accuracy")
        average = self.stepper.average
        with nullcontext() if average is None else average.applied():
            now = self.last = score(self.robust_loss, self.held, self.stepper.threat)
        if self.fast and not self.fell_back and collapsed(self.best, now, trained):
            self._fall_back(now, trained)
        else:
            self.best.offer(self.epoch + 1, now, self.weights())
        return now

    def _fall_back(self, now: Score, trained: float | None) -> None:
        """Go on with several steps, from the best weights if there are any."""
        logger.warning(
            "only %s of held-out images withstand PGD, after %s at best and with %s of training images that withstand "
            "a single step: single-step training has overfitted catastrophically, so it goes on with %d steps of PGD from "
            "the weights of epoch %d",
            percent(now.robust),
            percent(self.best.score.robust if self.best.score else 0.0),
            "an unknown share" if trained is None else percent(trained),
            STEPS,
            self.best.epoch or self.epoch + 1,
        )
        self.fell_back, self.robust_loss.attack = True, judge
        if self.best.score is None:
            self.best.offer(self.epoch + 1, now, self.weights())
        self.robust_loss.load_state_dict(self.best.weights)
        self.stepper.restart()

    def _batches_left(self) -> Iterator[Batch]:
        """The epoch's batches that were not taken before a resume, with as many of images without labels."""
        loader, now = self.batches.loader, randomness.random_states(self.batches.loader)
        sharding.set_epoch(loader, self.epoch)
        if self.consumed:
            randomness.restore_random_states(self.epoch_states, loader)
        else:
            self.epoch_states = now
        extra: Iterator[Any] = repeat(None) if self.unlabeled is None else self.unlabeled.endless()
        pairs = zip(self.batches.epoch(self.epoch), extra, strict=False)
        if self.consumed:
            # The order of images was drawn when the epoch began; everything after depends on the states of now.
            next(islice(pairs, self.consumed - 1, self.consumed), None)
            randomness.restore_random_states(now, loader)
        for (images, labels), more in pairs:
            yield images, labels, more

    def begin(self, facts: Mapping[str, Any], *, resume: bool) -> bool:
        """Write what the run is, or go on with the run in the folder; whether steps had been taken there.

        Raises:
            ValueError: what is in the folder belongs to another run, or is damaged.
        """
        if self.folder is None:
            return False
        goes_on = False
        if resume:
            run_folder.check_same_run(self.folder, facts)
            state = files.load_state(self.folder)
            goes_on = state is not None
            if state is not None:
                self.load_state_dict(state)
                if self.epoch < self.plan.epochs and not self.plan.over:
                    for each in (self.batches, self.unlabeled):
                        run_folder.told_if_inexact(getattr(each, "loader", None))
        distributed.wait()
        if distributed.rank() == 0 and not (goes_on and (self.folder / files.RUN).exists()):
            run_folder.write_run(self.folder, facts)
        return goes_on

    def save(self, *, outputs: bool = False) -> None:
        """Write all that a resumed run needs, and on demand the weights so far as files, if there is a folder."""
        if self.folder is None or distributed.rank() != 0:
            return
        files.save_state(self.folder, self.state_dict())
        if outputs:
            last = self.weights()
            run_folder.save_outputs(self.folder, self.best.weights or last, last)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on."""
        return {
            "stepper": self.stepper.state_dict(),
            "plan": {"taken": self.plan.taken, "elapsed": self.plan.elapsed},
            "best": self.best.state_dict(),
            "last": None if self.last is None else asdict(self.last),
            "meter": self.meter.state_dict(),
            "place": {"epoch": self.epoch, "consumed": self.consumed, "fell_back": self.fell_back},
            "epoch_states": self.epoch_states,
            "folded": self.robust_loss.passes.folded is not None,
            "compiled": self.robust_loss.passes.compiled,
            "states": randomness.random_states(self.batches.loader),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.stepper.load_state_dict(state["stepper"])
        self.plan.taken, self.plan.elapsed = state["plan"]["taken"], state["plan"]["elapsed"]
        self.best.load_state_dict(state["best"])
        self.last = None if state["last"] is None else Score(**state["last"])
        self.meter.load_state_dict(state["meter"])
        place = state["place"]
        self.epoch, self.consumed, self.fell_back = place["epoch"], place["consumed"], place["fell_back"]
        if self.fell_back:
            self.robust_loss.attack = judge
        # Measured anew, these might be chosen otherwise.
        self.robust_loss.fold(self.batches.peeked[0] if state["folded"] else None)
        self.robust_loss.passes.compile(state["compiled"])
        self.epoch_states = state["epoch_states"]
        randomness.restore_random_states(state["states"], self.batches.loader)
        self.journal.rewind(self.epoch)
