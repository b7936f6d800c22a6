"""What a step of training costs in passes, and how long each phase of a trial's arms may be when all arms cost the same."""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from robusttune import plugins
from robusttune.tasks import TaskWeights
from robusttune.tasks._heads import TASKS
from robusttune.threat import ThreatModel
from robusttune.training.presets import chosen_preset, default_attack, for_purpose
from robusttune.training.schedule import LATE
from robusttune.trial.results import named

FORWARD = 1 / 3  # of a forward and backward pass


class Length(NamedTuple):
    """How long a phase is: optimiser steps, epochs of its own loader (rounded up), and passes for each image of a step."""

    steps: int
    epochs: int
    passes: float


class Sizes(NamedTuple):
    """What a step sees: labelled images and batches an epoch, images without labels (0 for none), their shape."""

    batch: int
    batches: int
    shape: tuple[int, ...]
    unlabeled: int = 0
    unlabeled_batches: int = 0


def passes(kind: str, settings: Mapping[str, Any], sizes: Sizes, threat: ThreatModel) -> float:
    """Forward and backward passes through the model that each image of a step costs.

    With K steps of attack and r views of each image: adversarial training K+1; with pretext tasks that are not attacked
    K+1+r; attacked separately or jointly (K+1)(1+r); ordinary training 1; pre-training r. Images without labels, where
    there are any, are counted with the labelled ones. Judging epochs on held-out images is not.

    Args:
        kind: "pretrain", "ordinary" or "harden".
        settings: of the phase, those of all phases among them.
        sizes: of a step.
        threat: what is trained against unless the settings say.
    """
    if kind == "ordinary":
        return 1.0
    steps = _attack_steps(settings, sizes, threat)
    if kind == "pretrain":
        own, shared = _views(settings.get("tasks", TASKS), settings.get("views", "all"))
        return (own + shared) * (1 if settings.get("norm") is None else steps + 1)
    tasks = settings.get("tasks", "auto")
    tasks = chosen_preset(settings.get("preset", "standard")).tasks if tasks == "auto" else tasks
    meeting = settings.get("attack_tasks", "joint") if tasks else "none"
    own, shared = _views(tasks, settings.get("views", 1))
    clean = (
        1
        if getattr(plugins.instance("objectives", settings.get("objective", "adversarial")), "needs_clean", False)
        else 0
    )
    labelled = (steps + 1 + clean + FORWARD * clean) + own * (1 if meeting == "none" else steps + 1)
    labelled += (1 + clean) if settings.get("awp") else 0
    more = own * (1 if meeting == "none" else steps + 1) + shared * (steps + 1 if meeting == "joint" else 1)
    return labelled + more * (sizes.unlabeled / sizes.batch if tasks else 0)


def lengths(
    phases: Sequence[Any], epochs: float, sizes: Sizes, threat: ThreatModel, settings: Mapping[str, Any]
) -> list[Length]:
    """How long each phase of an arm is, so that the arm takes as many passes as adversarial training without pretext tasks
    does in so many epochs.

    Args:
        phases: of the arm; `share` among a phase's settings is its share, and what is left goes to those without.
        epochs: of the adversarial training that is the measure.
        sizes, threat: see `passes`.
        settings: of all phases.
    """
    whole = epochs * sizes.batches * sizes.batch * passes("harden", {**settings, "tasks": None}, sizes, threat)
    found = []
    for share, (kind, own) in zip(shares(phases), map(named, phases), strict=True):
        given = {**settings, **own}
        cost = passes(kind, own if kind == "pretrain" else given, sizes, threat)
        alone = kind == "pretrain" and sizes.unlabeled > 0
        batch, batches = (sizes.unlabeled, sizes.unlabeled_batches) if alone else (sizes.batch, sizes.batches)
        steps, every = _steps(share * whole / (cost * batch), batches, int(given.get("accumulate", 1)))
        found.append(Length(steps, math.ceil(steps / every), cost))
    return found


def _steps(taken: float, batches: int, accumulate: int) -> tuple[int, int]:
    """Optimiser steps in so many batches, at least one, and those of an epoch, whose last step takes what is left."""
    every = math.ceil(batches / accumulate)
    epochs, rest = divmod(taken, batches)
    return max(1, int(epochs) * every + min(every, round(rest / accumulate))), every


def shares(phases: Sequence[Any]) -> list[float]:
    """The share of each phase in its arm's compute.

    Raises:
        ValueError: they do not add up to 1.

    Example:
        >>> shares([{"pretrain": {"share": 0.25}}, {"harden": {}}])
        [0.25, 0.75]
    """
    given = [named(phase)[1].get("share") for phase in phases]
    open_ones = given.count(None)
    used = sum(share for share in given if share is not None)
    fits = used < 1 if open_ones else math.isclose(used, 1)
    if phases and not (fits and all(share is None or share > 0 for share in given)):
        raise ValueError(
            f"the shares of an arm's phases are {', '.join(map(str, given))}, but they must be above 0 and add up to 1; "
            "leave one out to give it what is left"
        )
    return [(1 - used) / open_ones if share is None else share for share in given]


def _attack_steps(settings: Mapping[str, Any], sizes: Sizes, threat: ThreatModel) -> float:
    """Gradients that the attack takes, in the mean over a run."""
    preset = chosen_preset(settings.get("preset", "standard"))
    norm, _ = for_purpose(settings.get("purpose", "attacks"), settings.get("norm"), "auto")
    own_norm = "norm" in settings or "purpose" in settings
    against = ThreatModel(norm if own_norm else threat.norm, 0.0)
    images = torch.empty(1, *sizes.shape)
    attack, steps = default_attack(images, against, settings.get("attack", "auto"), settings.get("steps"), preset)
    if steps is None:
        own = inspect.signature(plugins.find("attacks", attack)).parameters.get("steps")
        steps = 1 if own is None else own.default
    if preset.late is not None and "attack" not in settings and "steps" not in settings:
        return LATE * steps + (1 - LATE) * preset.late[1]
    return float(steps)


def _views(tasks: TaskWeights | None, views: int | str) -> tuple[int, int]:
    """Views of each image that go through the model on their own, and whether tasks read the image's forward pass."""
    made = [plugins.instance("tasks", task) for task in tasks or {}]
    drawn = sum(not task.shares_forward for task in made)
    return (drawn if views == "all" else min(int(views), drawn)), int(drawn < len(made))
