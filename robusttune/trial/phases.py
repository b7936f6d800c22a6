"""Phases of an arm as calls of `harden` and `pretrain`."""

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from torch import nn

from robusttune.norms import canonical
from robusttune.plugins import did_you_mean
from robusttune.tasks._weights import felt
from robusttune.threat import ThreatModel
from robusttune.training.estimate import Estimate, estimate_of
from robusttune.training.harden import harden
from robusttune.training.presets import EARLIER
from robusttune.training.pretrain import pretrain
from robusttune.training.settings import run_settings
from robusttune.training.stages import unchanged
from robusttune.trial.arms import PhaseKind, Settings
from robusttune.trial.arms._phase import name_and_settings, tasks_of, with_weights
from robusttune.trial.data import Data, InputSpace
from robusttune.trial.equal_compute import Length, lengths
from robusttune.trial.plan import TrialPlan
from robusttune.types import Loader

KINDS: tuple[PhaseKind, ...] = get_args(PhaseKind)
ADVERSARY = {
    "norm", "eps", "purpose", "preset", "tasks", "attack_tasks", "views", "objective", "attack", "steps", "step_size",
    "awp", "eps_ramp", "min_clean", "heads",
}  # fmt: skip
# Arguments that the trial passes itself, the same for all arms.
RESERVED = {
    "model", "loader", "images", "val_loader", "unlabeled_loader", "heads", "pretrain_epochs", "finetune", "epochs", "max_steps", "time_budget",
    "out", "resume", "init_from", "checkpoint_every", "seed", "on_epoch", "progress", "log", "mean", "std", "normalized",
    "classifier", "device", "sharded", "notes",
}  # fmt: skip
CHECKPOINTS = 10  # in a phase


@dataclass(frozen=True)
class Call:
    """A phase as a call of `pretrain` (kind "pretrain") or of `harden` (the other kinds).

    Attributes:
        kind: the kind of the phase.
        images: loader of the images to train on.
        settings: the settings of the phase and of the plan that the function takes.
        length: steps and epochs.
        space: the model's input and its place.
        held: loader of images to judge epochs on; None for the function's default.
        unlabeled: loader of images without labels, for pretext tasks or a teacher; None for none.
    """

    kind: PhaseKind
    images: Loader
    settings: Settings
    length: Length
    space: InputSpace
    held: Loader | None = None
    unlabeled: Loader | None = None

    def run(self, model: nn.Module, folder: Path, seed: int, *, progress: bool) -> None:
        """Train the model, or continue a run that was killed."""
        every = max(1, math.ceil(self.length.steps / CHECKPOINTS))
        if self.kind == "pretrain":
            pretrain(
                model,
                self.images,
                epochs=self.length.epochs,
                max_steps=self.length.steps,
                seed=seed,
                out=folder,
                resume=True,
                checkpoint_every=every,
                progress=progress,
                mean=self.space.mean,
                std=self.space.std,
                normalized=self.space.normalized,
                classifier=self.space.classifier,
                device=self.space.device,
                **self.settings,
            )
        else:
            harden(
                model,
                self.images,
                val_loader=self.held,
                unlabeled_loader=self.unlabeled,
                epochs=self.length.epochs,
                max_steps=self.length.steps,
                seed=seed,
                out=folder,
                resume=True,
                checkpoint_every=every,
                progress=progress,
                mean=self.space.mean,
                std=self.space.std,
                normalized=self.space.normalized,
                classifier=self.space.classifier,
                device=self.space.device,
                **self.settings,
            )

    def estimate(self, model: nn.Module) -> Estimate:
        """Estimate the run of a phase that `harden` trains."""
        settings = run_settings(
            self.images,
            val_loader=self.held,
            unlabeled_loader=self.unlabeled,
            epochs=self.length.epochs,
            max_steps=self.length.steps,
            mean=self.space.mean,
            std=self.space.std,
            normalized=self.space.normalized,
            classifier=self.space.classifier,
            device=self.space.device,
            **self.settings,
        )
        return estimate_of(model, settings, warned=True)

    def pretrain_an_epoch(self, model: nn.Module, batches: Loader) -> None:
        """Pre-train the model on other batches, once, without a folder."""
        pretrain(
            model,
            batches,
            epochs=1,
            progress=False,
            mean=self.space.mean,
            std=self.space.std,
            normalized=self.space.normalized,
            classifier=self.space.classifier,
            device=self.space.device,
            **self.settings,
        )


def calls_of(plan: TrialPlan, arm: str, data: Data, space: InputSpace) -> list[Call]:
    """Return the calls of an arm, one for each phase.

    Args:
        plan: the plan of the trial.
        arm: its name.
        data: the data of the trial.
        space: the model's input and its place.

    Raises:
        ValueError: unknown kinds of phases or unknown settings.
    """
    common = {"preset": EARLIER, **with_weights(plan.settings or {})}  # plans of earlier versions did not name it
    _check_names(f"settings: {sorted(common)}", common, "harden")
    phases = []
    for name, settings in map(name_and_settings, plan.arms[arm]):
        kind = _kind(arm, name)
        _check_names(f"arm {arm!r}, {kind}", settings, kind)
        phases.append((kind, settings))
    norm, eps = plan.threat or ("linf", 0.0)
    phase_lengths = lengths(plan.arms[arm], plan.epochs, data.sizes, ThreatModel(norm, eps), common)
    return [
        _call(kind, {**settings_for(kind, common), **settings}, length, plan, data, space)
        for (kind, settings), length in zip(phases, phase_lengths, strict=True)
    ]


def _call(
    kind: PhaseKind, settings: dict[str, Any], length: Length, plan: TrialPlan, data: Data, space: InputSpace
) -> Call:
    settings = {name: value for name, value in settings.items() if name != "share"}
    if kind == "pretrain":
        images = data.loader if data.unlabeled is None else data.unlabeled
        return Call(kind, images, settings, length, space)
    if kind == "ordinary":
        return ordinary_call(settings, length, data, space)
    taught = settings.get("teacher") is not None
    if taught and data.unlabeled is None:
        raise ValueError(
            "an arm has a teacher, but there are no images without labels: pass unlabeled_loader=, or drop the arm"
        )
    unlabeled = data.unlabeled if taught or felt(tasks_of(settings)) else None
    if unlabeled is not None and not taught and plan.needs is not None:  # earlier versions had the model label them
        settings["teacher"] = None  # the images are for the pretext tasks alone
    return Call(kind, data.loader, _with_threat(settings, plan), length, space, held=data.held, unlabeled=unlabeled)


def ordinary_call(settings: Settings, length: Length, data: Data, space: InputSpace) -> Call:
    """Return the call of a phase of ordinary training."""
    without = {
        "preset": EARLIER,
        "update_batch": None,
        "tasks": None,
        "attack": unchanged,
        "eps": 0.0,
        "eps_ramp": False,
    }
    return Call("ordinary", data.loader, {**settings, **without}, length, space, held=data.held)


def _with_threat(settings: dict[str, Any], plan: TrialPlan) -> dict[str, Any]:
    """Add the norm and the radius of the plan to settings that do not name them."""
    if "purpose" not in settings and "norm" not in settings:
        norm, eps = plan.threat or (None, None)
        own = settings.get("eps")
        return {**settings, "norm": norm, "eps": eps if own is None else own}
    if "norm" in settings and settings.get("eps") is None:
        radii = {canonical(norm): eps for norm, eps in (plan.threats or {}).items()}
        return {**settings, "eps": radii.get(canonical(settings["norm"]))}
    return settings


def settings_for(kind: PhaseKind, common: Settings) -> dict[str, Any]:
    """Select the settings of all phases that a phase of this kind takes."""
    if kind == "harden":
        return dict(common)
    known = inspect.signature(pretrain if kind == "pretrain" else harden).parameters
    return {name: value for name, value in common.items() if name in known and name not in ADVERSARY}


def _kind(arm: str, name: str) -> PhaseKind:
    for kind in KINDS:
        if kind == name:
            return kind
    raise ValueError(f"arm {arm!r} has a phase {name!r}, but it must be one of {', '.join(KINDS)}")


def _check_names(where: str, settings: Mapping[str, object], kind: PhaseKind) -> None:
    """Raise a ValueError for settings that a phase of this kind does not have."""
    function = pretrain if kind == "pretrain" else harden
    forbidden = ADVERSARY if kind == "ordinary" else set()
    known = set(inspect.signature(function).parameters) - RESERVED - forbidden | {"share"}
    for name in settings:
        if name in known:
            continue
        if name in RESERVED:
            raise ValueError(f"{where}: {name} is set by the trial, the same for all arms: leave it out")
        if name in forbidden:
            raise ValueError(f"{where}: {name} needs an adversary, which ordinary training does not have: use harden")
        hint = did_you_mean(name, known)
        raise ValueError(f"{where}: there is no {name!r}{hint}; known are {', '.join(sorted(known))}")
