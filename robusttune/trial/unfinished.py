"""Training and evaluation of the arms and seeds of a trial that have no result yet."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import nn

from robusttune import plugins
from robusttune.measuring.evaluate import evaluate
from robusttune.run.log import tell
from robusttune.trial.arms._phase import name_and_settings
from robusttune.trial.data import Data, InputSpace
from robusttune.trial.phases import Call
from robusttune.trial.plan import TrialPlan
from robusttune.trial.results import RECORDS, item_place, phase_place, place_of, result_of


class Place(NamedTuple):
    """An arm and a seed that are to be run, and their folder."""

    arm: str
    seed: int
    folder: Path


def unfinished(folder: Path, plan: TrialPlan, stage: str, progress: bool) -> Iterator[Place]:
    """Yield arms and seeds without a result: seed by seed, so that finished arms can be compared at any time.

    An arm that does not train has one folder for all seeds, and is yielded once.
    """
    yielded = set[Path]()
    pairs = [(arm, seed) for seed in plan.seeds for arm in plan.arms]
    for number, (arm, seed) in enumerate(pairs, 1):
        place = Place(arm, seed, place_of(folder, plan, arm, seed))
        if place.folder not in yielded and result_of(folder, plan, arm, seed) is None:
            yielded.add(place.folder)
            tell(f"{stage}: arm {arm}, seed {seed} ({number} of {len(pairs)})", progress)
            yield place


def train(model: nn.Module, calls: Sequence[Call], place: Place, plan: TrialPlan, progress: bool) -> None:
    """Train the model in all phases of an arm.

    The teacher "self" is the model from before the first phase, in later phases, too.
    """
    start = copy.deepcopy(model) if any(map(_taught_by_itself, calls[1:])) else None
    calls = [
        replace(call, settings={**call.settings, "teacher": start}) if number and _taught_by_itself(call) else call
        for number, call in enumerate(calls)
    ]
    for number, (call, phase) in enumerate(zip(calls, plan.arms[place.arm], strict=True)):
        call.run(model, phase_place(place.folder, number, phase), place.seed, progress=progress)


def _taught_by_itself(call: Call) -> bool:
    return call.settings.get("teacher") == "self"


def measure(model: nn.Module, place: Place, plan: TrialPlan, data: Data, space: InputSpace, progress: bool) -> None:
    """Measure all items without records, on the same images and with the same random numbers for every arm."""
    norm, eps = plan.threat or ("linf", None)
    for item in plan.items_with(place.seed):
        folder = item_place(place.folder, plan, item)
        if (folder / RECORDS).exists():
            continue
        name, settings = name_and_settings(item)
        evaluate(
            model,
            data.test,
            plugins.configured("evaluations", name, **settings),
            norm=norm,
            eps=eps,
            mean=space.mean,
            std=space.std,
            normalized=space.normalized,
            subset=plan.evaluation.images,
            out=folder,
            resume=True,
            seed=0,
            device=space.device,
            progress=progress,
        )
        if not (folder / RECORDS).exists():  # evaluate has said why, and where the Records are
            raise OSError(
                f"{str(folder)!r} did not take what was measured: make room, move the Records of the warning there or leave them, and "
                "go on with resume=True"
            )
