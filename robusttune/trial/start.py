"""The model that every arm of a trial starts from."""

import copy
from pathlib import Path

from torch import nn

from robusttune.data.epochs import Batches
from robusttune.data.pixels import find_pixels
from robusttune.measuring.chance import UNTRAINED, first_guess
from robusttune.model.devices import chosen_device, placed
from robusttune.run import folder as run_folder
from robusttune.run.log import warn
from robusttune.training.checks import LONGER
from robusttune.training.stages import FOLDER, check_earlier
from robusttune.trial.data import Data, InputSpace
from robusttune.trial.equal_compute import Length
from robusttune.trial.phases import ordinary_call, settings_for
from robusttune.trial.plan_defaults import PlanRequest


def finetuned_start(
    model: nn.Module, data: Data, space: InputSpace, request: PlanRequest, out: Path, resume: bool, progress: bool
) -> nn.Module:
    """Return a copy of the model after some epochs of ordinary training; one that was killed is resumed, a finished one loaded.

    Args:
        model: that the user passed; it does not change.
        data, space, request: of the trial.
        out, resume, progress: see `poc`.

    Raises:
        ValueError: the folder is not empty, or holds a fine-tuning of another length.
    """
    check_earlier(out, {"finetune": request.finetune})
    run_folder.prepared(out, resume, beside=[FOLDER])
    run_folder.prepared(out / FOLDER, resume)
    batches, epochs = data.sizes.batches, request.finetune
    length = Length(steps=epochs * batches, epochs=epochs, passes=float(epochs))
    start = copy.deepcopy(model)
    call = ordinary_call(settings_for("ordinary", request.settings or {}), length, data, space)
    call.run(start, out / FOLDER, 0, progress=progress)
    return start


def warn_of_chance(model: nn.Module, data: Data, space: InputSpace, *, finetuned: bool, progress: bool) -> None:
    """Warn of a model that seems not to be trained on the classes of the images, as all arms start from it."""
    images, labels = Batches(data.loader).first()
    pixels = find_pixels(images, data.loader, mean=space.mean, std=space.std, normalized=space.normalized, model=model)
    device = chosen_device(model, space.device)
    with placed(model, device):
        guess = first_guess(model, pixels.to(device), images, labels, data.loader, 0)
    if guess:
        advice = f"{UNTRAINED}pass finetune=EPOCHS to train it before all arms, or load trained weights"
        warn(f"{guess}: {LONGER if finetuned else advice}", progress)
