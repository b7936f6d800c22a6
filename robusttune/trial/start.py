"""The model that every arm of a trial starts from, and a look at it and at the held-out images before anything is spent."""

import copy
import math
from pathlib import Path
from statistics import NormalDist

import torch
from torch import Tensor, nn

from robusttune.data.batches import check_classes, hard_labels, stream
from robusttune.data.class_names import class_names, shown
from robusttune.data.epochs import Batches
from robusttune.data.pixels import find_pixels
from robusttune.measuring.chance import UNTRAINED, first_guess
from robusttune.measuring.record import named
from robusttune.model.devices import chosen_device, placed
from robusttune.model.features import predicted_logits
from robusttune.run import folder as run_folder
from robusttune.run.log import warn
from robusttune.run.randomness import random_states, restore_random_states
from robusttune.training.checks import LONGER
from robusttune.training.stage_folders import check_earlier
from robusttune.training.stages import FOLDER
from robusttune.trial.data import Data, InputSpace
from robusttune.trial.decision.significance import LEVEL
from robusttune.trial.equal_compute import Length
from robusttune.trial.phases import ordinary_call, settings_for
from robusttune.trial.plan import TrialPlan
from robusttune.trial.plan_defaults import PlanRequest
from robusttune.trial.power import ENOUGH, LARGEST
from robusttune.types import Loader

ENOUGH_TO_SEE = 10_000  # held-out images, to look at their classes


def finetuned_start(
    model: nn.Module, data: Data, space: InputSpace, request: PlanRequest, out: Path, resume: bool, progress: bool
) -> nn.Module:
    """Return a copy of the model after some epochs of ordinary training; one that was killed is resumed, a finished one loaded.

    Args:
        model: the model that the user passed; it does not change.
        data, space, request: those of the trial.
        out, resume, progress: see `poc`.

    Raises:
        ValueError: the folder is not empty, or holds a fine-tuning of another length.
    """
    check_earlier(out, {"finetune": request.finetune})
    with run_folder.prepared(out / FOLDER, resume):
        pass  # before anything is computed
    batches, epochs = data.sizes.batches, request.finetune
    length = Length(steps=epochs * batches, epochs=epochs, passes=float(epochs))
    start = copy.deepcopy(model)
    call = ordinary_call(settings_for("ordinary", request.settings or {}), length, data, space)
    call.run(start, out / FOLDER, 0, progress=progress)
    return start


def _check_held_out(data: Data, plan: TrialPlan, outputs: int, *, allow_weak: bool, progress: bool) -> None:
    """Check the classes of the held-out images, and whether they are enough for any answer; see `check_start`."""
    trained, held = class_names(data.loader), class_names(data.test)
    if trained is not None and held is not None and trained != held:
        other = (
            f"the classes of loader are {shown(trained)}, those of test_loader {shown(held)}: a label would mean two things, so "
            "give both the same classes in the same order"
        )
        if sorted(trained) == sorted(held):
            raise ValueError(other)
        warn(other, progress)
    asked = plan.evaluation.images + (plan.screening or {}).get("images", 0)
    labels, whole = _labels(data.test, max(asked, ENOUGH_TO_SEE), outputs)
    missing = sorted(set(range(len(trained or held or range(outputs)))) - set(labels.tolist()))
    if missing and whole:
        names = shown([named(each, trained or held or ()) for each in missing])
        many = len(missing) > 1
        what = f"class{'es' * many} {names}: the trial says nothing about {'these' if many else 'it'}"
        warn(f"no held-out image is of the {what}", progress)
    few = too_few(plan, len(labels) if whole else None)
    if few and not (allow_weak or plan.screening is None):
        raise ValueError(f"{few}, or pass allow_weak=True")
    if few:
        warn(few, progress)


def _labels(loader: Loader, most: int, outputs: int) -> tuple[Tensor, bool]:
    """Read the labels of the held-out images, of many or endless ones the first; returns whether these are all.

    Raises:
        ValueError: there are none, or the model has no output for one of them.
    """
    states, found, count = random_states(loader), list[Tensor](), 0
    for _, labels in stream(loader):
        check_classes(labels, outputs)
        found.append(hard_labels(labels))
        count += len(labels)
        if count >= most:
            break
    restore_random_states(states, loader)
    if not found:
        raise ValueError("test_loader has no images: pass one that has")
    return torch.cat(found), count < most


def too_few(plan: TrialPlan, there: int | None = None) -> str | None:
    """Say that a plan has too few held-out images to find a difference of five points, whatever its arms and seeds; None if not.

    Two arms differ on at least as many images as their accuracies do. So even with endless seeds the standard error of a
    difference d on M images is at least sqrt(d(1-d)/M).

    Args:
        plan: the plan of the trial.
        there: number of held-out images of both stages; None if there are more than the plan takes.
    """
    images, difference = plan.evaluation.images, LARGEST / 100
    screened = (plan.screening or {}).get("images", 0)
    if there is not None:
        images = min(images, there - screened)
    normal = NormalDist()
    enough = (normal.inv_cdf(1 - LEVEL / 2) + normal.inv_cdf(ENOUGH)) ** 2 * (1 - difference) / difference
    if images >= enough:
        return None
    least = math.ceil(enough)
    beside = f", beside the {screened} that the screening takes" if screened else ""
    # Where there are enough, the plan takes too few of them.
    enlarged = there is None or there - screened >= least
    advice = f"raise images to {least} or more" if enlarged else "hold more back, or pass a larger test_loader"
    return (
        f"{images} held-out images are too few for any answer: a difference of {LARGEST} points takes at least {least}{beside}, "
        f"with however many seeds; {advice}"
    )


def check_start(
    model: nn.Module,
    data: Data,
    space: InputSpace,
    plan: TrialPlan,
    out: Path,
    *,
    allow_weak: bool,
    progress: bool,
) -> None:
    """Look at the model and the held-out images before anything is spent.

    Args:
        model: the model that every arm starts from. A warning is logged if it only guesses.
        data, space, plan: those of the trial.
        out: folder of the trial, in which a fine-tuning may stand.
        allow_weak: only warn of too few images for any answer.
        progress: show warnings.

    Raises:
        ValueError: labels that the model has no output for, other classes than those of training, or too few images.
    """
    images, labels = Batches(data.loader).first()
    pixels = find_pixels(images, data.loader, mean=space.mean, std=space.std, normalized=space.normalized, model=model)
    device = chosen_device(model, space.device)
    with placed(model, device):
        outputs = predicted_logits(model, pixels.to(device), images[:1]).shape[1]
        _check_held_out(data, plan, outputs, allow_weak=allow_weak, progress=progress)
        guess = first_guess(model, pixels.to(device), images, labels, data.loader, 0)
    if guess:
        advice = f"{UNTRAINED}pass finetune=EPOCHS to train it before all arms, or load trained weights"
        warn(f"{guess}: {LONGER if (out / FOLDER).exists() else advice}", progress)
