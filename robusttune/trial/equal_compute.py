"""Equal compute: the cost of a training step in passes, and the length of each phase when all arms cost the same."""

import inspect
import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, cast

import torch

from robusttune import plugins
from robusttune.tasks import TASKS, TasksLike
from robusttune.tasks._weights import felt, task_weights
from robusttune.threat import ThreatModel
from robusttune.training.presets import chosen_preset, default_attack, for_purpose, images_of_a_step
from robusttune.training.schedule import LATE
from robusttune.training.settings import HardenSettings, run_settings
from robusttune.trial.arms import Phase, Settings
from robusttune.trial.arms._phase import name_and_settings, shares, tasks_of
from robusttune.types import says

FORWARD = 1 / 3  # share of a forward and backward pass


class Length(NamedTuple):
    """Length of a phase: optimiser steps, epochs of its loader (rounded up), and passes for each image of a step."""

    steps: int
    epochs: int
    passes: float


class Sizes(NamedTuple):
    """Sizes of a step and an epoch: labelled images and batches, images (C,H,W), images without labels (0 for none)."""

    batch: int
    batches: int
    shape: tuple[int, ...]
    unlabeled: int = 0
    unlabeled_batches: int = 0


def passes_per_image(kind: str, settings: Settings, sizes: Sizes, threat: ThreatModel) -> float:
    """Count the forward and backward passes through the model that each image of a step costs.

    With K steps of attack and r views of each image: adversarial training K+1; with pretext tasks that are not attacked
    K+1+r; attacked separately or jointly (K+1)(1+r); ordinary training 1; pre-training r. APGD takes a forward pass more than
    its K steps, which looks at the last candidates. Images without labels are counted with the labelled ones; a teacher costs a
    forward pass of each, as on accelerators (a processor remembers labels of images that do not change). The judging of epochs on
    held-out images is not counted, nor is the fit of heads alone.

    Args:
        kind: "pretrain", "ordinary" or "harden".
        settings: the settings of the phase, including those of all phases.
        sizes: the sizes of a step.
        threat: the threat of the trial; a norm among the settings comes first.
    """
    if kind == "ordinary":
        return 1.0
    steps = _attack_steps(settings, sizes, threat)
    if kind == "pretrain":
        views, shared = _views(settings.get("tasks", TASKS), settings.get("views", "all"))
        return (views + shared) * (1 if settings.get("norm") is None else steps + 1)
    tasks = felt(tasks_of(settings))
    attacked = settings.get("attack_tasks", "joint") if tasks else "none"
    views, shared = _views(tasks, settings.get("views", 1))
    of_views = views * (1 if attacked == "none" else steps + 1)
    clean = _clean_passes(settings)
    labelled = (steps + 1 + clean + FORWARD * clean) + of_views
    labelled += (1 + clean) if settings.get("awp") else 0
    if settings.get("teacher") is not None:  # the images without labels take places of a batch
        more = sizes.unlabeled * sizes.unlabeled_batches
        return labelled + FORWARD * more / (more + sizes.batch * sizes.batches)
    unlabelled = of_views + shared * (steps + 1 if attacked == "joint" else 1)
    return labelled + unlabelled * (sizes.unlabeled / sizes.batch if tasks else 0)


def lengths(
    phases: Sequence[Phase], epochs: float, sizes: Sizes, threat: ThreatModel, settings: Settings
) -> list[Length]:
    """Return the length of each phase of an arm that takes as many passes as the reference does.

    The reference is adversarial training without pretext tasks, for `epochs` epochs.

    Args:
        phases: the phases of the arm; see `shares` for the share of each.
        epochs: the number of epochs of the reference.
        sizes, threat: see `passes_per_image`.
        settings: the settings of all phases.
    """
    passes = partial(passes_per_image, sizes=sizes, threat=threat)
    reference = passes("harden", {**settings, "tasks": None})
    whole = epochs * sizes.batches * sizes.batch * reference
    result = []
    for share, (kind, of_phase) in zip(shares(phases), map(name_and_settings, phases), strict=True):
        merged = {**settings, **of_phase}
        cost = passes(kind, of_phase if kind == "pretrain" else merged)
        alone = kind == "pretrain" and sizes.unlabeled > 0
        batch, batches = (sizes.unlabeled, sizes.unlabeled_batches) if alone else (sizes.batch, sizes.batches)
        if kind == "harden" and merged.get("teacher") is not None:
            batches += math.ceil(sizes.unlabeled * sizes.unlabeled_batches / batch)
        steps, per_epoch = _steps(share * whole / (cost * batch), batches, int(merged.get("accumulate", 1)))
        parts = _parts(merged, sizes) if kind == "harden" else 1
        steps, per_epoch = steps * parts, per_epoch * parts
        result.append(Length(steps, math.ceil(steps / per_epoch), cost))
    return result


def _parts(settings: Settings, sizes: Sizes) -> int:
    """Count the steps that a batch is taken in."""
    names = ("preset", "update_batch", "accumulate", "lr", "optimizer", "scheduler")
    given = cast(HardenSettings, {name: settings[name] for name in names if name in settings})
    most = images_of_a_step(run_settings([], **given), torch.empty(1, *sizes.shape))
    return 1 if most is None else math.ceil(sizes.batch / most)


def _steps(taken: float, batches: int, accumulate: int) -> tuple[int, int]:
    """Return the optimiser steps in the batches taken, at least one, and in an epoch; the last step of one may be smaller."""
    per_epoch = math.ceil(batches / accumulate)
    epochs, rest = divmod(taken, batches)
    return max(1, int(epochs) * per_epoch + min(per_epoch, round(rest / accumulate))), per_epoch


def _attack_steps(settings: Settings, sizes: Sizes, threat: ThreatModel) -> float:
    """Return the passes that the attack takes, one for each of its gradients, averaged over a run."""
    images = torch.empty(1, *sizes.shape)
    preset = chosen_preset(settings.get("preset", "standard")).at(images)
    norm, _ = for_purpose(settings.get("purpose", "attacks"), settings.get("norm"), "auto")
    other_norm = "norm" in settings or "purpose" in settings
    against = ThreatModel(norm if other_norm else threat.norm, 0.0)
    attack, steps = default_attack(images, against, settings.get("attack", "auto"), settings.get("steps"), preset)
    if steps is None:
        parameter = inspect.signature(plugins.find("attacks", attack)).parameters.get("steps")
        steps = 1 if parameter is None else parameter.default
    usual = says(settings.get("attack", "auto"), "auto") and settings.get("steps") is None
    if preset.late is not None and usual:
        return LATE * steps + (1 - LATE) * preset.late[1]
    return steps + FORWARD * says(attack, "apgd")


def _clean_passes(settings: Settings) -> int:
    """Return 1 for an objective that also needs the unchanged images, else 0."""
    objective = plugins.instance("objectives", settings.get("objective", "adversarial"))
    return int(getattr(objective, "needs_clean", False))


def _views(tasks: TasksLike, views: int | str) -> tuple[int, int]:
    """Count the views of each image that need a separate forward pass, and 1 if any task uses that of the image itself."""
    pretext_tasks = [plugins.instance("tasks", task) for task in task_weights(tasks) or {}]
    separate = sum(not task.shares_forward for task in pretext_tasks)
    return (separate if views == "all" else min(int(views), separate)), int(separate < len(pretext_tasks))
