"""The plan of a trial that is resumed: it is of the same model, the same images and the same arguments."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from robusttune.run import files
from robusttune.run.folder import as_json
from robusttune.run.log import tell
from robusttune.run.provenance import fingerprint
from robusttune.training.presets import EARLIER
from robusttune.trial.data import Data, InputSpace
from robusttune.trial.plan import PLAN, DataFacts, TrialPlan
from robusttune.trial.plan_defaults import PlanRequest
from robusttune.trial.request_checks import chosen_seeds
from robusttune.trial.results import START
from robusttune.types import Channels, Json

FINGERPRINTS = {"training fingerprint": "training images", "unlabelled fingerprint": "images without labels"}


def earlier_plan(
    folder: Path,
    request: PlanRequest,
    defaults: Mapping[str, object],
    model: nn.Module,
    data: Data,
    space: InputSpace,
    progress: bool,
) -> TrialPlan | None:
    """Read the plan in the folder, which comes before the arguments; None if there is none.

    Args:
        folder: the folder of the trial.
        request, defaults: arguments of `poc`, and their defaults.
        model, data, space: those of the trial that goes on.
        progress: show what an earlier version did.

    Raises:
        ValueError: it is of another model or other images, or an argument differs from the earlier call.
    """
    path = folder / PLAN
    if not path.exists():
        return None
    plan = TrialPlan.read(folder)
    counts, facts = _counted(plan.data), _counted(data.facts())
    for name, before, now in (("model", plan.model, name_of(model)), ("data", counts, facts)):
        if before != now:
            start = f"; the weights that it starts from are in {str(folder / START)!r}" if name == "model" else ""
            raise ValueError(
                f"{str(path)!r} is of {name} {before}, but this is {now}{start}: pass the {name} of the plan, or name "
                "another folder"
            )
    _check_images(path, plan.data or {}, data)
    before = json.loads((folder / files.RUN).read_text(encoding="utf-8"))["arguments"]
    _check_request(path, request, before, defaults)
    _check_input(path, space, before)
    if "preset" not in (plan.settings or {}):
        tell(f"{str(path)!r} names no preset, like earlier plans: its arms take preset={EARLIER!r}", progress)
    return plan


def _counted(facts: DataFacts | None) -> dict[str, object] | None:
    """Return the facts of a trial's data without the fingerprints, which not every trial has."""
    return None if facts is None else {name: fact for name, fact in facts.items() if name not in FINGERPRINTS}


def _check_images(path: Path, before: DataFacts, data: Data) -> None:
    """Raise a ValueError where images to train on are as many as before, but others; a plan of before has no fingerprint."""
    for name, what in FINGERPRINTS.items():
        known, now = before.get(name), (data.fingerprints or {}).get(name)
        if known is not None and now is not None and known != now:
            raise ValueError(
                f"{str(path)!r} is of other {what}: there are as many now, but their files, values or labels are not those of before ({name} "
                f"was {known} and is {now}), so that its arms could not be compared: pass the {what} of before, or name another folder"
            )


def name_of(model: nn.Module) -> str:
    """Name a model by its type and its weights."""
    return f"{type(model).__name__} {fingerprint(model)}"


def input_arguments(space: InputSpace) -> dict[str, Json]:
    """Return the arguments of `poc` that say what the model takes, as `run.json` holds them."""
    mean, std = _plain(space.mean), _plain(space.std)
    return {"mean": mean, "std": std, "normalized": space.normalized, "classifier": space.classifier}


def _plain(channels: Channels | None) -> list[float] | None:
    """Return numbers for each channel, whether they came as a number, a list or a tensor."""
    if channels is None:
        return None
    return [float(each) for each in torch.as_tensor(channels, dtype=torch.float32).flatten().tolist()]


def _check_request(
    path: Path, request: PlanRequest, before: Mapping[str, Json], defaults: Mapping[str, object]
) -> None:
    """Raise a ValueError for arguments that are neither their defaults nor those of the call that wrote the plan."""
    now, usual, earlier = (as_json(_spelt(each)) for each in (vars(request), defaults, before))
    changed = [name for name in now if now[name] not in (usual[name], earlier.get(name))]
    if changed:
        changes = ", ".join(f"{name} was {earlier.get(name)} and is {now[name]}" for name in changed)
        raise ValueError(
            f"the plan {str(path)!r} was written with other arguments ({changes}): leave them out and edit the plan, which "
            "comes first, or name another folder"
        )


def _check_input(path: Path, space: InputSpace, before: Mapping[str, Json]) -> None:
    """Raise a ValueError if the model would get other inputs than the arms that are trained; a trial of an earlier version does not say."""
    now = input_arguments(space)
    changed = {name: value for name, value in now.items() if before.get(name, value) != value}
    if changed:
        changes = ", ".join(f"{name} was {before[name]} and is {value}" for name, value in changed.items())
        raise ValueError(
            f"the trial of {str(path)!r} was begun with another input of the model ({changes}), so its arms could not be compared: "
            "pass the same as before, or name another folder"
        )


def _spelt(arguments: Mapping[str, object]) -> dict[str, object]:
    """Return arguments in which two spellings of the same seeds are the same."""
    seeds = arguments.get("seeds")
    return {**arguments, "seeds": None if seeds is None else chosen_seeds(seeds)}  # type: ignore[arg-type]
