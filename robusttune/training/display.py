"""The progress bar of a run, and one line about the time that is left."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from robusttune.run import distributed, termination
from robusttune.run.log import tell
from robusttune.run.settings import duration
from robusttune.training.meter import READ_EVERY

if TYPE_CHECKING:
    from robusttune.training.loop import Training

TIMED = 3  # optimiser steps that are timed, after the first one, which also warms up
WORTH_TELLING = 10.0  # seconds


class Display:
    """Shows the progress of a run after each of its optimiser steps.

    Args:
        training: the run.
        bar: the progress bar.
        show: print the line about the time that is left, too.
    """

    def __init__(self, training: "Training", bar: "tqdm[object]", show: bool) -> None:
        self.training, self.bar, self.show = training, bar, show
        self._first: tuple[int, float] | None = None
        self._elapsed = training.progress.elapsed
        self._meter, self._began = training.meter, (training.meter.images, training.progress.elapsed)

    def after_step(self) -> None:
        """Move the bar on; now and then, write the means of the epoch beside it."""
        progress = self.training.progress
        self.bar.update(progress.taken - self.bar.n)
        if self.training.meter is not self._meter:
            self._meter, self._began = self.training.meter, (0, self._elapsed)
        self._elapsed = progress.elapsed
        if progress.taken % READ_EVERY == 0:
            self._write_means()
        if self._first is None:
            self._first = progress.taken, progress.elapsed
        elif progress.taken == self._first[0] + TIMED:
            line = time_left(self.training, (progress.elapsed - self._first[1]) / TIMED)
            if line and distributed.rank() == 0:
                tell(line, self.show)

    def _write_means(self) -> None:
        progress, (images, seconds) = self.training.progress, self._began
        self.bar.set_description(f"epoch {self.training.epoch + 1}/{progress.length.epochs}")
        rate = (self._meter.images - images) * distributed.world() / max(progress.elapsed - seconds, 1e-9)
        named = self._meter.means() if self.training.stepper.threat.eps else without_attack(self._meter.means())
        means = {key: f"{value:.3f}" for key, value in named.items()}
        self.bar.set_postfix({**means, "images/s": f"{rate:.0f}"})


def without_attack(means: dict[str, float]) -> dict[str, float]:
    """Return the means of an epoch of ordinary training under names without "robust".

    Example:
        >>> without_attack({"loss": 0.5, "robust": 0.5, "robust accuracy": 0.75})
        {'loss': 0.5, 'accuracy': 0.75}
    """
    names = {"robust": "classes", "robust accuracy": "accuracy"}
    alone = means.get("robust") == means.get("loss")
    return {names.get(key, key): value for key, value in means.items() if not (alone and key == "robust")}


@contextmanager
def displayed(training: "Training", show: bool) -> Iterator[Display]:
    """Show the progress bar of a run inside this context, if `show` is True; a SIGTERM waits for the end of a step."""
    progress = training.progress
    with (
        termination.deferred(),
        tqdm(total=progress.steps, initial=progress.taken, unit="step", disable=not show) as bar,
    ):
        try:
            yield Display(training, bar, show)
        except RuntimeError as error:
            # A SIGTERM to all processes of a job ends the loader's workers, too, while this one finishes its step.
            if not termination.asked() or "DataLoader worker" not in str(error):
                raise
            if not training.stepper.waiting:
                training.checkpoints.save(training)
            raise termination.Terminated from error


def time_left(training: "Training", seconds: float) -> str:
    """Say how long the steps that are left will take; empty if that is not known, or hardly any time.

    Args:
        training: the run.
        seconds: the seconds of one optimiser step.
    """
    progress = training.progress
    left = None if progress.steps is None else (progress.steps - progress.taken) * seconds
    budget = progress.length.time_budget
    if budget is not None:
        left = budget - progress.elapsed if left is None else min(left, budget - progress.elapsed)
    if left is None or left < WORTH_TELLING:
        return ""
    more = "" if training.validation.loader is None else ", and some more to judge epochs on held-out images"
    return f"about {duration(left)} left for training, at {seconds:.2g} s a step{more}"
