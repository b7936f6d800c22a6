"""The phases of an arm as calls of `harden` and `pretrain`."""

import inspect
import math
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from robusttune.norms import canonical
from robusttune.threat import LossOf, ThreatModel
from robusttune.training.harden import harden
from robusttune.training.pretrain import pretrain
from robusttune.trial.data import Data
from robusttune.trial.equal_compute import Length, lengths
from robusttune.trial.results import named, threat_of

KINDS = ("pretrain", "ordinary", "harden")
ADVERSARY = {
    "norm", "eps", "purpose", "preset", "tasks", "attack_tasks", "views", "objective", "attack", "steps", "step_size",
    "awp", "eps_ramp", "min_clean", "heads",
}  # fmt: skip
# What is the same for all arms, or the trial's own business.
OWN = {
    "model", "loader", "images", "val_loader", "unlabeled_loader", "heads", "epochs", "max_steps", "time_budget", "out",
    "resume", "init_from", "checkpoint_every", "seed", "on_epoch", "progress", "log", "mean", "std", "normalized",
    "classifier", "device", "sharded",
}  # fmt: skip
CHECKPOINTS = 10  # a phase


class Call(NamedTuple):
    """A phase as a call: `function(model, images, **settings, seed=…, out=…)`."""

    function: Callable[..., Any]
    images: Any
    settings: dict[str, Any]
    length: Length

    def run(self, model: nn.Module, folder: Path, seed: int, *, progress: bool) -> None:
        """Train the model, or go on where it was killed."""
        every = max(1, math.ceil(self.length.steps / CHECKPOINTS))
        more = {"seed": seed, "out": folder, "resume": True, "checkpoint_every": every, "progress": progress}
        self.function(model, self.images, **self.settings, **more)


def unchanged(loss_of: LossOf, images: Tensor, threat: ThreatModel, *, generator: Any) -> Tensor:
    """The images themselves: the adversary of ordinary training, which costs nothing."""
    return images


def calls_of(plan: Mapping[str, Any], arm: str, data: Data, space: Mapping[str, Any]) -> list[Call]:
    """The calls that an arm is made of, one for each phase.

    Args:
        plan: of the trial.
        arm: its name.
        data: of the trial.
        space: mean, std, normalized, classifier and device, as `harden` takes them.

    Raises:
        ValueError: phases or settings that there are none of.
    """
    phases, common = plan["arms"][arm], plan.get("settings") or {}
    _check_names(f"settings: {sorted(common)}", common, "harden")
    for phase in phases:
        kind, own = named(phase)
        if kind not in KINDS:
            raise ValueError(f"arm {arm!r} has a phase {kind!r}, but it must be one of {', '.join(KINDS)}")
        _check_names(f"arm {arm!r}, {kind}", own, kind)
    norm, eps = threat_of(plan) or ("linf", 0.0)
    every = lengths(phases, plan["epochs"], data.sizes, ThreatModel(norm, eps), common)
    made = zip(map(named, phases), every, strict=True)
    return [_call(kind, {**_taken(kind, common), **own}, length, plan, data, space) for (kind, own), length in made]


def _call(
    kind: str,
    given: dict[str, Any],
    length: Length,
    plan: Mapping[str, Any],
    data: Data,
    space: Mapping[str, Any],
) -> Call:
    given = {key: value for key, value in {**space, **given}.items() if key != "share"}
    given |= {"epochs": length.epochs, "max_steps": length.steps}
    if kind == "pretrain":
        return Call(pretrain, data.loader if data.unlabeled is None else data.unlabeled, given, length)
    given["val_loader"] = data.held
    if kind == "ordinary":
        return Call(
            harden, data.loader, {**given, "tasks": None, "attack": unchanged, "eps": 0.0, "eps_ramp": False}, length
        )
    if "purpose" not in given and "norm" not in given:
        given["norm"], given["eps"] = threat_of(plan) or (None, None)
    elif "norm" in given and given.get("eps") is None:
        radii = {canonical(norm): eps for norm, eps in plan["threats"].items()}
        given["eps"] = radii.get(canonical(given["norm"]))
    if given.get("tasks", "auto") is not None and given.get("preset") != "fast":
        given["unlabeled_loader"] = data.unlabeled
    return Call(harden, data.loader, given, length)


def _taken(kind: str, common: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of all phases that make sense for one of this kind."""
    if kind == "harden":
        return dict(common)
    known = inspect.signature(pretrain if kind == "pretrain" else harden).parameters
    return {key: value for key, value in common.items() if key in known and key not in ADVERSARY}


def _check_names(where: str, given: Mapping[str, Any], kind: str) -> None:
    """Raise a ValueError for settings that a phase of this kind does not have."""
    function = pretrain if kind == "pretrain" else harden
    strange = ADVERSARY if kind == "ordinary" else set()
    known = set(inspect.signature(function).parameters) - OWN - strange | {"share"}
    for name in given:
        if name in known:
            continue
        if name in OWN:
            raise ValueError(f"{where}: {name} is the trial's own, the same for all arms: leave it out")
        if name in strange:
            raise ValueError(f"{where}: {name} is of an adversary, and there is none in ordinary training: use harden")
        close = get_close_matches(name, known, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"{where}: there is no {name!r}{hint}; known are {', '.join(sorted(known))}")
