"""Continuation of a finished run with more epochs, steps or seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from robusttune.run import files
from robusttune.run import folder as run_folder
from robusttune.run.about import read_facts

if TYPE_CHECKING:
    from robusttune.training.loop import Training

# The arguments that end a run, and their units.
LENGTHS = {"epochs": "epoch", "max_steps": "step", "time_budget": "second"}


class Continuation(NamedTuple):
    """Continuation of a finished run: old and new values of the arguments that end it, and its epochs and steps so far."""

    before: dict[str, float | None]
    now: dict[str, float | None]
    epochs: int
    steps: int

    def __str__(self) -> str:
        limits = " or ".join(_counted(value, LENGTHS[name]) for name, value in self.now.items() if value is not None)
        so_far = f"{_counted(self.epochs, 'epoch')} and {_counted(self.steps, 'step')}"
        return f"the run had finished after {so_far}, and goes on to {limits}"


def continuation(
    folder: Path, changed: Mapping[str, tuple[Any, Any]], facts: Mapping[str, Any], state: Mapping[str, Any] | None
) -> Continuation | None:
    """Return how the finished run in a folder goes on; None if no argument that ends a run has changed.

    Args:
        folder: the folder of the run.
        changed: the arguments that differ, before and now.
        facts: the contents of `run.json` for the present call.
        state: the state of the run in the folder; None if there is none.

    Raises:
        ValueError: another argument has changed, the run has not finished, or nothing would be left to do.
    """
    if not changed:
        return None
    now = {name: facts["arguments"].get(name) for name in LENGTHS}
    before = {name: changed[name][0] if name in changed else now[name] for name in LENGTHS}
    of_run = all(value is None or _is_length(value) for value in before.values())
    if set(changed) - set(LENGTHS) or state is None or not of_run:
        raise run_folder.other_arguments(folder, changed)
    epochs, steps, seconds = state["place"]["epoch"], state["plan"]["taken"], state["plan"]["elapsed"]
    reached = {"epochs": epochs, "max_steps": steps, "time_budget": seconds}
    if state["place"]["consumed"] or not _over(before, reached):
        raise run_folder.other_arguments(
            folder, changed, "the run is not finished, and only a finished one can be given another length"
        )
    if not _over(now, reached):
        return Continuation(before, now, epochs, steps)
    if any(_limit(now[name]) > _limit(before[name]) for name in changed):
        ended = " and ".join(f"{name}={now[name]}" for name in LENGTHS if reached[name] >= _limit(now[name]))
        raise ValueError(f"the run in {str(folder)!r} has ended by {ended}, too: pass more of that as well")
    raise run_folder.other_arguments(folder, changed)


def _counted(number: float, unit: str) -> str:
    return f"{number:.12g} {unit}{'s' * (number != 1)}"


def _is_length(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _limit(value: float | None) -> float:
    return math.inf if value is None else value


def _over(limits: Mapping[str, float | None], reached: Mapping[str, float]) -> bool:
    return any(reached[name] >= _limit(limits[name]) for name in LENGTHS)


def consequence(training: Training) -> str:
    """Describe what a continuation means for the learning rate, in one sentence."""
    rate = (
        "the learning rate follows the schedule of this length"
        if training.stepper.recipe.scheduler is None or isinstance(training.stepper.recipe.scheduler, str)
        else "the learning rate goes on as scheduler= says"
    )
    return f"from here on {rate}, with all of eps, so this is not bit for bit a run of this length from its start"


def note_continuation(folder: Path, facts: Mapping[str, Any], more: Continuation) -> None:
    """Write to `run.json` that the run was continued, and its present arguments."""
    earlier = read_facts(folder / files.RUN)
    note = {"after": {"epochs": more.epochs, "steps": more.steps}, "from": more.before, "to": more.now}
    continued = [*(earlier.get("continued") or []), note]
    run_folder.write_run(folder, {**earlier, "arguments": facts["arguments"], "continued": continued})
