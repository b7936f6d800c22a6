"""Recovery of a run that diverges: back to its best weights, and on from there with a lower learning rate."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from robusttune.measuring.record import percent
from robusttune.run import distributed, files
from robusttune.run.provenance import fingerprint
from robusttune.training.divergence import LEAST_FALL, advice, fell, guessing, not_finite, ramping
from robusttune.training.meter import READ_EVERY, Meter
from robusttune.training.settings import EpochFacts

if TYPE_CHECKING:
    from robusttune.training.loop import Training
    from robusttune.training.validation import Score

logger = logging.getLogger("robusttune")

DIVIDED_BY = 4.0
MOST = 3  # times in a run
NEAR = 1.2  # times the balanced accuracy of a guess
# The attributes that are saved in checkpoints, beside the weights that are kept.
STATE = ("times", "clean", "robust", "trained", "odd", "event", "unhelped", "sound")
UNUSED = 3  # successive steps that the scaler of fp16 skipped; a single skipped step is usual


@dataclass(frozen=True)
class Kept:
    """Weights to go back to, and the epoch that ended with them; 0 for those at the start."""

    weights: Mapping[str, Tensor]
    epoch: int


class Recovery:
    """Watches a run for divergence, and takes it back to its best weights with a quarter of the learning rate.

    Three signs: a loss, weights or logits that are not finite; accuracy far below the best so far, on held-out images or,
    where there are none, on the epoch's training images; a model that guesses although it knew the classes at the start.

    Attributes:
        times: how often the run has gone back.
        start, began: hash of the weights before the steps that this process takes, and their number then; None if it takes none.
        kept: weights to go back to while no held-out images have chosen any.
        clean, robust: the best held-out accuracy so far; clean, at the full radius alone.
        trained: the best accuracy so far on the adversarial training images of an epoch, at the full radius alone.
        odd: names of weights that were not finite at the start, such as masks.
        event: facts of the epoch, if the run has gone back in it.
        between: whether the steps of the epoch are over.
        sound: whether the best epoch on held-out images is known to do better than a guess.
        ended: meter of the last epoch; an empty one where the run has gone back in it.
        unhelped: whether a collapse that could not be helped was logged.
    """

    def __init__(self) -> None:
        self.times = 0
        self.kept: Kept | None = None
        self.start: str | None = None
        self.began = 0
        self.clean = self.robust = self.trained = 0.0
        self.odd: list[str] = []
        self.ended = Meter()
        self.event: EpochFacts = {}
        self.unhelped = self.between = self.sound = False

    def begin(self, training: "Training") -> None:
        """Keep the weights that the run starts from, or that a run without any was resumed with."""
        self.start = None if training.over else fingerprint(training.robust_loss.model, trained=True)
        self.began = training.progress.taken
        fresh = not self.began  # the average need not be written to the model: it is the same
        if self.kept is None and not self.sound:
            self._keep(training.robust_loss.state_dict() if fresh else training.weights(), training.epoch)
        if fresh and self.kept is not None:
            self.odd = not_finite(self.kept.weights)

    def after_step(self, training: "Training") -> None:
        """Look at the losses now and then: reading them waits for the device.

        Raises:
            FloatingPointError: see `go_back`.
        """
        if training.progress.taken % READ_EVERY == 0:
            self._read_losses(training)

    def means(self, training: "Training") -> EpochFacts:
        """Look at the losses of the epoch, and return the means of its loss terms over all processes.

        Raises:
            FloatingPointError: see `go_back`.
        """
        self.between = True
        self._read_losses(training)
        return training.meter.shared_means(training.stepper.device)

    def _read_losses(self, training: "Training") -> None:
        meter, stepper = training.meter, training.stepper
        broken, in_a_row = meter.broken()
        if stepper.scaler.is_enabled() and in_a_row < min(UNUSED, meter.steps):
            broken = None
        if not distributed.summed([broken is not None], stepper.device)[0]:
            return
        where = "in another process" if broken is None else f"in batch {broken} of the epoch"
        self.go_back(training, f"the loss was not finite {where}")
        meter.forget_broken()

    def judge(
        self, training: "Training", score: "Score | None", trained: float | None, weights: Mapping[str, Tensor]
    ) -> bool:
        """Go back if the run has diverged, judged by its weights and their held-out score; return True if these weights must not be kept.

        Args:
            score: None if the logits are not finite.
            trained: see `validate`.
            weights: the weights that were scored.

        Raises:
            FloatingPointError: see `go_back`.
        """
        if score is None or self._broken(training, weights):
            what = "weights" if self._broken(training, weights) else "logits on held-out images"
            self.go_back(training, f"the model's {what} were not finite at the end of epoch {training.epoch + 1}")
            return True
        if self._has_just_gone_back(training):
            return True  # these weights are known
        seen = self._collapse(training, score, trained)
        if seen:
            return self._help(training, seen)
        if not ramping(training):
            self.clean = max(self.clean, score.clean)
        self.robust = max(self.robust, score.robust)
        return False

    def _collapse(self, training: "Training", score: "Score", trained: float | None) -> str:
        """Return what shows a collapse on held-out images; empty for none."""
        validation, classes = training.validation, training.robust_loss.classifier.classes
        guess = guessing(training) if score.worst == 0 and score.balanced * classes <= NEAR else ""
        self.sound = self.sound or not guess
        if guess and self._knows_better(training):
            return guess
        if ramping(training):
            return ""
        if fell(self.clean, score.clean, score.images, 1 / classes):
            return f"{percent(score.clean)} of held-out images were right, after {percent(self.clean)}"
        watched = validation.single_step and not validation.fell_back
        overfitted = watched and (trained is None or trained - score.robust > LEAST_FALL)  # which has another remedy
        if not overfitted and fell(self.robust, score.robust, score.images):
            return f"{percent(score.robust)} of held-out images withstood the attack, after {percent(self.robust)}"
        return ""

    def end_epoch(self, training: "Training", facts: EpochFacts) -> EpochFacts:
        """Judge the epoch by its training images where none are held out; returns the facts of going back, if the run did.

        Args:
            facts: the facts of the epoch.

        Raises:
            FloatingPointError: see `go_back`.
        """
        if training.validation.loader is None:
            self._judge_trained(training, facts.get("robust accuracy"))
        elif self.sound:
            self.kept = None
        event, self.event, self.between = self.event, {}, False
        self.ended = Meter() if event else training.meter
        return event

    def _judge_trained(self, training: "Training", accuracy: float | None) -> None:
        weights, number = training.weights(), training.epoch + 1
        if self._broken(training, weights):
            self.go_back(training, f"the model's weights were not finite at the end of epoch {number}")
            return
        if self._has_just_gone_back(training):
            return
        guess, images = guessing(training), training.meter.images * distributed.world()
        seen = guess if self._knows_better(training) else ""
        if accuracy is not None and (math.isnan(accuracy) or self.event or ramping(training)):
            accuracy = None
        classes = training.robust_loss.classifier.classes
        if not seen and accuracy is not None and fell(self.trained, accuracy, images, 1 / classes):
            seen = f"{percent(accuracy)} of the epoch's training images withstood the attack, after {percent(self.trained)}"
        if seen:
            self._help(training, seen)
        elif not guess and (
            accuracy is None or accuracy >= self.trained
        ):  # an epoch that collapses near its end has a lower one
            self._keep(weights, number)
            self.trained = accuracy or self.trained

    def _help(self, training: "Training", seen: str) -> bool:
        """Go back after a collapse if that can help, else log once that it cannot; return True if the run went back."""
        if self.ends(training) and (training.validation.loader is not None or self._at_start(training)):
            return False  # the best epoch is returned anyway, or there is nothing better
        if (self.times < MOST or self.ends(training)) and training.stepper.scheduler is None:
            self.go_back(training, seen)
            return True
        if not self.unhelped and distributed.rank() == 0:
            logger.warning(
                "step %d: %s; %s, so the run goes on as it is: try lr= lower",
                training.progress.taken,
                seen,
                "scheduler= sets the learning rate" if self.times < MOST else "lower learning rates have not helped",
            )
        self.unhelped = True
        return False

    def go_back(self, training: "Training", seen: str) -> None:
        """Load the best weights so far, clear what the optimiser and the average remember, and lower the learning rate.

        Args:
            seen: what shows that the run has diverged.

        Raises:
            FloatingPointError: a scheduler of the user sets the rate, the run has gone back three times, has no finite
                weights, or no step left after those that it started from.
        """
        stepper, kept = training.stepper, self._goal(training)
        before = float(max(stepper.rates))
        if stepper.scheduler is not None:
            raise advice(seen, "scheduler= sets the learning rate, so that it is not lowered here")
        if self.times >= MOST and not (self.ends(training) and kept is not None and kept.epoch):
            raise advice(seen, f"the run went back {MOST} times, and on with a lower rate, at last with lr={before:g}")
        if kept is None or self._broken(training, kept.weights):
            raise advice(seen)
        if not kept.epoch and self.ends(training):
            raise advice(seen, "no step is left for a lower rate")
        training.robust_loss.load_state_dict(dict(kept.weights))
        stepper.drop()
        stepper.restart()
        stepper.scaler = stepper.precision.scaler(stepper.device)
        self.times += 1
        self.lower(training)
        now, step = float(max(stepper.rates)), training.progress.taken
        self.event = {"diverged at step": step, "peak lr": now}
        place = f"the weights of epoch {kept.epoch}" if kept.epoch else "the weights that it started from"
        on = f", and on with a learning rate of at most {now:g} in place of {before:g}"
        then = "" if self.ends(training) else on
        if distributed.rank() == 0:
            logger.warning("step %d: %s, so the run goes back to %s%s", step, seen, place, then)

    def ends(self, training: "Training") -> bool:
        """Return True if no step of the run is left; all processes agree."""
        progress = training.progress
        over = progress.over or (self.between and training.epoch + 1 >= progress.length.epochs)
        return bool(distributed.agreed(float(over), training.stepper.device))

    def _goal(self, training: "Training") -> Kept | None:
        """Return the weights to go back to: the best on held-out images, unless every epoch guessed; else the weights in `kept`."""
        best = training.validation.best
        return Kept(best.weights, best.epoch) if self.sound and best.score is not None else self.kept

    def _has_just_gone_back(self, training: "Training") -> bool:
        """Return True if no step was taken since the run went back."""
        return self.event.get("diverged at step") == training.progress.taken

    def _at_start(self, training: "Training") -> bool:
        """Return True while there is nothing to go back to but the start."""
        goal = self._goal(training)
        return goal is None or not goal.epoch

    def _knows_better(self, training: "Training") -> bool:
        """Return True if guessing is a sign of a collapse: the model knew the classes before, or the run has diverged before."""
        return bool(distributed.agreed(float(training.validation.knew or self.times > 0), training.stepper.device))

    def lower(self, training: "Training", times: int = 1) -> None:
        """Divide the peak learning rate of each parameter group, which the schedule multiplies by its factor."""
        stepper = training.stepper
        stepper.rates = [rate / DIVIDED_BY**times for rate in stepper.rates]

    def _keep(self, weights: Mapping[str, Tensor], epoch: int) -> None:
        on_host = {
            name: value.detach().cpu() if isinstance(value, Tensor) else value for name, value in weights.items()
        }
        self.kept = Kept(files.copied(on_host), epoch)

    def _broken(self, training: "Training", weights: Mapping[str, Tensor]) -> bool:
        """Return True if weights that were finite at the start are not; all processes agree."""
        broken = not set(not_finite(weights)) <= set(self.odd)
        return bool(distributed.summed([broken], training.stepper.device)[0])

    def state_dict(self, training: "Training") -> dict[str, Any]:
        """Return the state, for `load_state_dict`."""
        kept = self.kept and {"weights": files.loadable(self.kept.weights), "epoch": self.kept.epoch}
        return {**{name: getattr(self, name) for name in STATE}, "kept": kept, "knew": training.validation.knew}

    def load_state_dict(self, training: "Training", state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned, and its learning rate; the state of an earlier version is empty."""
        kept = state.get("kept")
        if kept is not None:
            weights = files.completed(kept["weights"], training.robust_loss.state_dict())
            self.kept = Kept(weights, kept["epoch"])
        training.validation.knew = state.get("knew", training.validation.knew)
        self.sound = training.validation.best.score is not None  # before there was this entry
        for name in STATE:
            setattr(self, name, state.get(name, getattr(self, name)))
        self.lower(training, self.times)
