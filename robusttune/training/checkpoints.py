"""Checkpoints of a run: its state in `state.pt`, from which it resumes exactly, and its weights as files."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from robusttune.model.cuda_graphs import Graphs
from robusttune.run import distributed, files, randomness, termination
from robusttune.run import folder as run_folder
from robusttune.run.fields import WrongFact
from robusttune.run.log import tell
from robusttune.training.checkpoint_checks import check_fit, check_shared, check_state, warn_of_other_data
from robusttune.training.continuing import Continuation, consequence, continuation, note_continuation
from robusttune.training.step import Stepper
from robusttune.training.validation import Score, judge

if TYPE_CHECKING:
    from robusttune.training.loop import Training

COPIES = 6  # least number of copies of the weights: last and best, in a checkpoint, in the one that replaces it, and as files

# The errors of torch, numpy and Python where a state is not what they wrote.
WRONG = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RuntimeError, AssertionError)


class OtherDecay(ValueError):
    """Another weight decay than that of the run, in words."""


@dataclass(frozen=True)
class Checkpoints:
    """The folder of a run, and how often it is written to.

    Attributes:
        folder: the folder of the run; None for no checkpoints.
        every: optimiser steps between checkpoints, beside those at the end of each epoch.
        show: whether to print that a finished run goes on.
    """

    folder: Path | None = None
    every: int | None = None
    show: bool = False

    def save_if_due(self, training: Training) -> None:
        """Write the state of a run if a checkpoint has to be written after this optimiser step, or the process has to end.

        Raises:
            Terminated: a SIGTERM has come.
        """
        if termination.asked():
            self.save(training)
            raise termination.Terminated
        if self.every is not None and training.progress.taken % self.every == 0:
            self.save(training)

    def begin(self, training: Training, facts: Mapping[str, Any], *, resume: bool) -> bool:
        """Write `run.json`, or restore the run in the folder; returns whether a run was restored.

        Raises:
            ValueError: the folder holds another run, or a damaged file.
        """
        if self.folder is None:
            return False
        check_shared(self.folder)
        if not (self.folder / files.STATE).exists():  # a checkpoint that is replaced gives its room
            weights = training.robust_loss.parameters()
            run_folder.check_room(self.folder, COPIES * sum(each.numel() * each.element_size() for each in weights))
        restored, more = self._restore(training, facts) if resume else (False, None)
        distributed.barrier()
        if distributed.rank() == 0 and not (restored and (self.folder / files.RUN).exists()):
            run_folder.write_run(self.folder, facts)
        if not restored:
            training.journal.rewind(0)  # of a run that was stopped before its first state
        if more is not None:
            self._go_on(training, facts, more)
        return restored

    def _go_on(self, training: Training, facts: Mapping[str, Any], more: Continuation) -> None:
        """Continue a finished run, and note that in `run.json`."""
        training.stepper.ramp = False  # the run has reached its radius
        tell(f"{more}: {consequence(training)}", self.show and distributed.rank() == 0)
        if self.folder is not None and distributed.rank() == 0:
            self.save(training)  # first, so that a kill in between leaves a finished run
            note_continuation(self.folder, facts, more)
        distributed.barrier()

    def _restore(self, training: Training, facts: Mapping[str, Any]) -> tuple[bool, Continuation | None]:
        """Restore the run in the folder; returns whether there was one, and how it goes on if it had finished.

        Raises:
            ValueError: it was begun with other arguments, and has not finished or differs in others than its length.
        """
        assert self.folder is not None
        changed = run_folder.changed_arguments(self.folder, facts)
        state, path = files.load_state(self.folder), self.folder / files.STATE
        with _in_words(path):
            check_state(state or {})
        more = continuation(self.folder, changed, facts, state)
        if state is None:
            return False, None
        with _in_words(path):
            check_fit(training, state)
            restore(training, state)
        if not training.consumed and distributed.rank() == 0:
            self._save_outputs(training)  # a stop after the last state may have left those of the epoch before
        warn_of_other_data(self.folder, facts, over=training.over)
        if not training.over:
            for batches in (training.batches, training.unlabeled):
                run_folder.warn_if_inexact(getattr(batches, "loader", None))
        return True, more

    def save(self, training: Training, *, outputs: bool = False) -> None:
        """Write the state of a run, and with `outputs` its best and last weights, if there is a folder."""
        if self.folder is None or distributed.rank() != 0:
            return
        files.save_state(self.folder, state_of(training))
        if outputs:
            self._save_outputs(training)

    def _save_outputs(self, training: Training) -> None:
        """Write the best and the last weights of a run."""
        assert self.folder is not None
        last = training.weights()
        best = training.robust_loss.heads.without_waiting(training.validation.best.weights or last)
        run_folder.save_outputs(self.folder, best, last)


def state_of(training: Training) -> dict[str, Any]:
    """Return the state of a run, for `restore`."""
    validation, best = training.validation, training.validation.best.state_dict()
    return {
        "stepper": _stepper_state(training.stepper),
        "plan": {"taken": training.progress.taken, "elapsed": training.progress.elapsed},
        "best": {**best, "weights": files.loadable(best["weights"])},
        "last": None if validation.last is None else asdict(validation.last),
        "meter": training.meter.state_dict(),
        "recovery": training.recovery.state_dict(training),
        "place": {"epoch": training.epoch, "consumed": training.consumed, "fell_back": validation.fell_back},
        "epoch_states": training.epoch_states,
        "folded": training.robust_loss.passes.folded is not None,
        "compiled": training.robust_loss.passes.compiled,
        "replayed": training.robust_loss.passes.graphs is not None,
        "states": randomness.random_states(*training.drawn_from),
    }


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """Raise a ValueError with the next step for errors inside this context, which reads what a checkpoint holds."""
    try:
        yield
    except (OtherDecay, torch.OutOfMemoryError):
        raise
    except WRONG as error:
        why = str(error) if isinstance(error, WrongFact) else f"{type(error).__name__}: {error}"
        raise ValueError(
            f"the run in {str(path.parent)!r} cannot go on from {path.name} ({why}): pass the model, the optimizer and the other "
            "objects of that run; if they are, the file is damaged or of another program: restore it from a copy, or remove it "
            "to start the run afresh"
        ) from error


def restore(training: Training, state: Mapping[str, Any]) -> None:
    """Bring a run into the state that `state_of` returned."""
    validation, position = training.validation, state["place"]
    _check_decay(training.stepper, state["stepper"]["optimizer"])
    _restore_stepper(training.stepper, state["stepper"])
    training.progress.taken, training.progress.elapsed = state["plan"]["taken"], state["plan"]["elapsed"]
    validation.best.load_state_dict(state["best"])
    if validation.best.weights:
        validation.best.weights = files.completed(validation.best.weights, training.robust_loss.state_dict())
    validation.last = None if state["last"] is None else Score(**state["last"])
    training.meter.load_state_dict(state["meter"], training.stepper.device)
    training.epoch, training.consumed = position["epoch"], position["consumed"]
    training.recovery.load_state_dict(training, state.get("recovery", {}))
    validation.fell_back = position["fell_back"]
    if validation.fell_back:
        training.robust_loss.attack = judge
    # A new measurement might choose another fast path.
    training.robust_loss.fold(training.batches.peeked[0] if state["folded"] else None)
    training.robust_loss.passes.compile(state["compiled"])
    if state.get("replayed") and training.stepper.device.type == "cuda":
        training.robust_loss.passes.replay(Graphs(level=logging.INFO))
    training.epoch_states = state["epoch_states"]
    randomness.restore_random_states(state["states"], *training.drawn_from)
    training.journal.rewind(training.epoch)


def _stepper_state(stepper: Stepper) -> dict[str, Any]:
    """Return the state of weights, optimiser, scheduler, scaler and average."""
    return {
        "weights": files.loadable(stepper.robust_loss.state_dict()),
        "calls": stepper.robust_loss.calls,
        "ramp": stepper.ramp,
        "clip_grad": stepper.recipe.clip_grad,
        "optimizer": stepper.optimizer.state_dict(),
        "scheduler": None if stepper.scheduler is None else stepper.scheduler.state_dict(),
        "scaler": stepper.scaler.state_dict(),
        "average": None if stepper.average is None else stepper.average.state_dict(),
    }


def _restore_stepper(stepper: Stepper, state: Mapping[str, Any]) -> None:
    robust_loss = stepper.robust_loss
    robust_loss.load_state_dict(files.completed(state["weights"], robust_loss.state_dict()))
    stepper.robust_loss.calls, stepper.ramp = state["calls"], state["ramp"]
    stepper.recipe = replace(stepper.recipe, clip_grad=state.get("clip_grad", stepper.recipe.clip_grad))
    stepper.optimizer.load_state_dict(state["optimizer"])
    if stepper.scheduler is not None:
        stepper.scheduler.load_state_dict(state["scheduler"])
    stepper.scaler.load_state_dict(state["scaler"])
    if stepper.average is not None:
        stepper.average.load_state_dict(state["average"])


def _check_decay(stepper: Stepper, saved: Mapping[str, Any]) -> None:
    """Raise an OtherDecay if a run of an earlier version took other customary values for its named optimiser."""
    before, now = (
        sorted({group.get("weight_decay", 0) for group in groups})
        for groups in (saved["param_groups"], stepper.optimizer.param_groups)
    )
    if isinstance(stepper.recipe.optimizer, str) and before != now:
        raise OtherDecay(
            f"the run was begun with weight decay {max(before):g}, and now {stepper.recipe} would be taken: another version chose "
            "other values for this optimizer. Go on with that version, or start afresh with resume=False"
        )
