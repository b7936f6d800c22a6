"""Evaluations as options of commands, and an estimate of their cost."""

from collections.abc import Mapping
from typing import Any

from robusttune import plugins
from robusttune.cli.options import Arguments, Listed, Sources, evaluation_arguments
from robusttune.cli.prepared import prepared
from robusttune.cli.start import tell_start
from robusttune.cli.unlabeled import teacher_of
from robusttune.measuring.estimate import EvaluationEstimate
from robusttune.measuring.evaluate import EvaluationLike
from robusttune.measuring.run_defaults import RunDefaults
from robusttune.model.teacher import SELF
from robusttune.training.estimate import estimate


def evaluations_of(which: Listed) -> list[EvaluationLike]:
    """Find evaluations by their names, or with their settings."""
    return [_evaluation(entry) for entry in list_of(which) or []]


def estimate_evaluations(
    sources: Sources,
    arguments: Arguments,
    which: Listed,
    *,
    teacher: str,
    subset: int | None,
    devices: Mapping[str, float] | None,
) -> EvaluationEstimate:
    """Estimate what evaluate would cost with those of the arguments of harden that it has.

    Raises:
        ValueError: other arguments are not their defaults.
    """
    evaluations, shown = evaluations_of(which), {"subset": subset, "out": None, "progress": arguments["progress"]}
    model, loader, arguments = prepared(sources, evaluation_arguments(arguments), shuffle=False, alone=True)
    answers = None if teacher == SELF else teacher_of(teacher, sources, loader)
    norm, eps = RunDefaults().adversary(arguments["norm"], arguments["eps"])
    tell_start(sources, model, loader, {**arguments, **shown, "norm": norm, "eps": eps}, evaluations=evaluations)
    return estimate(model, loader, which=evaluations, teacher=answers, subset=subset, devices=devices, **arguments)


def _evaluation(entry: object) -> EvaluationLike:
    """Find an evaluation by its name, or with its settings by {name: {setting: value}}."""
    if isinstance(entry, str):
        plugins.find("evaluations", entry)  # refuses an unknown name before any image is read
        return entry
    name, settings = next(iter(entry.items())) if isinstance(entry, Mapping) and len(entry) == 1 else (None, None)
    if not isinstance(name, str) or not isinstance(settings, Mapping | None):
        raise ValueError(f"which={entry!r}, but names are needed, or {{name: {{setting: value}}}} for each")
    return plugins.configured("evaluations", name, **(settings or {}))


def list_of(entries: Listed) -> list[Any] | None:
    """Put a single entry into a list."""
    return list(entries) if isinstance(entries, list | tuple) else None if entries is None else [entries]
