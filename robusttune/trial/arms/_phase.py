"""Phases of arms and evaluation items, as a plan holds them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from robusttune.tasks import TaskWeights
from robusttune.tasks._weights import felt, task_weights
from robusttune.training.presets import EARLIER, chosen_preset

PhaseKind: TypeAlias = Literal["pretrain", "ordinary", "harden"]
# Keyword arguments of `harden`, `pretrain` or an evaluation; their values have as many types as those functions take.
Settings: TypeAlias = Mapping[str, Any]
Phase: TypeAlias = PhaseKind | Mapping[PhaseKind, Settings | None]
Phases: TypeAlias = list[Phase]
Arms: TypeAlias = dict[str, Phases]
# An evaluation by name, or {name: {setting: value}}.
Item: TypeAlias = str | Mapping[str, Settings | None]


def name_and_settings(entry: Phase | Item) -> tuple[str, dict[str, Any]]:
    """Split a phase or an evaluation item, which is a name or {name: {setting: value}}, into its name and its settings.

    Raises:
        ValueError: it is neither.

    Example:
        >>> name_and_settings({"sweep": {"steps": 20}})
        ('sweep', {'steps': 20})
    """
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, Mapping) and len(entry) == 1:
        ((name, settings),) = entry.items()
        if isinstance(name, str) and (settings is None or isinstance(settings, Mapping)):
            return name, with_weights(settings or {})
    raise ValueError(f"{entry!r} is in the plan, but a name or {{name: {{setting: value}}}} is needed")


def with_weights(settings: Settings) -> dict[str, Any]:
    """Return settings with the weight of each pretext task, where they name tasks alone or say "none".

    Example:
        >>> with_weights({"tasks": "rotation"}), with_weights({"tasks": "none"})
        ({'tasks': {'rotation': 0.5}}, {'tasks': None})
    """
    named = settings.get("tasks", "auto")
    return {**settings, **({} if named == "auto" else {"tasks": task_weights(named)})}


def tasks_of(settings: Settings) -> TaskWeights:
    """Return the weights of the pretext tasks in a phase of `harden`, those of its preset for "auto".

    Example:
        >>> tasks_of({"tasks": "rotation"}), tasks_of({"preset": "fast"})
        ({'rotation': 0.5}, {})
    """
    preset = chosen_preset(settings.get("preset", "standard"))
    return task_weights(settings.get("tasks", "auto"), preset.tasks) or {}


def meets_adversary(phases: Phases) -> bool:
    """Return True if any phase trains against an adversary."""
    return any(name == "harden" and settings.get("eps") != 0 for name, settings in map(name_and_settings, phases))


def names_threat(phases: Phases, common: Settings) -> bool:
    """Return True if any phase trains against a norm or a radius that it names, or that the settings of all phases name."""
    of_phases = ({**common, **settings} for name, settings in map(name_and_settings, phases) if name == "harden")
    return any(settings.get(name) is not None for settings in of_phases for name in ("norm", "eps", "purpose"))


def plain_settings(phases: Phases, common: Settings) -> Settings | None:
    """Return the settings of an arm's one phase of adversarial training without pretext tasks; None for another arm.

    Args:
        phases: the phases of the arm.
        common: settings of all phases.

    Example:
        >>> plain_settings(["harden"], {"preset": "standard"}), plain_settings(["harden"], {"preset": "joint"})
        ({}, None)
    """
    if len(phases) != 1:
        return None
    name, settings = name_and_settings(phases[0])
    merged = {"preset": EARLIER, **with_weights(common), **settings}
    plain = name == "harden" and not felt(tasks_of(merged)) and merged.get("eps") != 0
    return settings if plain else None


def shares(phases: Sequence[Phase]) -> list[float]:
    """Return each phase's share of its arm's compute; phases without one divide the rest equally.

    Raises:
        ValueError: they do not add up to 1.

    Example:
        >>> shares([{"pretrain": {"share": 0.25}}, {"harden": {}}])
        [0.25, 0.75]
    """
    named = [name_and_settings(phase)[1].get("share") for phase in phases]
    wrong = next((share for share in named if share is not None and type(share) not in (int, float)), None)
    if wrong is not None:
        raise ValueError(f"the share of a phase is {wrong!r}, but a number above 0 is needed, such as 0.5")
    open_ones = named.count(None)
    used = sum(share for share in named if share is not None)
    fits = used < 1 if open_ones else math.isclose(used, 1)
    if phases and not (fits and all(share is None or share > 0 for share in named)):
        raise ValueError(
            f"the shares of an arm's phases are {', '.join(map(str, named))}, but they must be above 0 and add up to 1; "
            "leave one out to give it the rest"
        )
    return [(1 - used) / open_ones if share is None else share for share in named]
