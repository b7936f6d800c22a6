"""What `harden` and `pretrain` share: a borrowed model, a folder, and a run made from the arguments that were given."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robusttune.data.batches import Batches
from robusttune.data.pixels import Pixels
from robusttune.model.activation_checkpointing import checkpointed
from robusttune.model.borrowing import borrowed, differentiable
from robusttune.model.devices import chosen_device, dtype_of
from robusttune.model.memory_format import chosen_format, formatted
from robusttune.run import distributed
from robusttune.run import folder as run_folder
from robusttune.run.log import Journal, chosen_tracker, tell
from robusttune.run.provenance import fingerprint, versions
from robusttune.training.autotune import check_choices, choose
from robusttune.training.ema import Average
from robusttune.training.loop import Training
from robusttune.training.precision import chosen_precision
from robusttune.training.recipe import default_recipe
from robusttune.training.robust_loss import RobustLoss
from robusttune.training.schedule import Plan
from robusttune.training.step import Stepper

LOADERS = ("val_loader", "unlabeled_loader")
OF_RECIPE = ("optimizer", "scheduler", "lr", "weight_decay", "clip_grad", "ema")


class Place(NamedTuple):
    """Where a run works, the folder that it writes to, if any, and what chooses the memory format by the first images."""

    device: torch.device
    folder: Path | None
    lay_out: Callable[[Tensor, Pixels], None]


@contextmanager
def begun(model: nn.Module, given: Mapping[str, Any]) -> Iterator[Place]:
    """Meet the other processes, and borrow the model for a run; on any failure it has its old weights back."""
    check_choices(given)
    device = chosen_device(model, given["device"])
    distributed.join(device)
    device = distributed.local_device(device)
    folder = run_folder.prepared(given["out"], given["resume"])
    with (
        differentiable(),
        run_folder.told_on_failure(folder),
        borrowed(model, device, given["seed"]),
        ExitStack() as until_the_end,
    ):

        def lay_out(images: Tensor, pixels: Pixels) -> None:
            inputs = pixels.inputs(pixels.pixels(images[:2].cpu())).to(device, dtype_of(model))
            until_the_end.enter_context(formatted(model, chosen_format(given["channels_last"], model, inputs)))

        yield Place(device, folder, lay_out)


def statistics(pixels: Pixels) -> dict[str, Any]:
    """RobustLoss's arguments for a space that was found."""
    known = pixels.known
    return {
        "mean": pixels.mean if known else None,
        "std": pixels.std if known else None,
        "normalized": pixels.normalized,
    }


def made(
    robust_loss: RobustLoss,
    batches: Batches,
    given: Mapping[str, Any],
    place: Place,
    *,
    pace: float = 1.0,
    ramp: bool = False,
    **more: Any,
) -> Training:
    """The run over the batches that the arguments ask for; `more` are arguments of Training."""
    images: Tensor = batches.peeked[0]
    recipe = default_recipe(robust_loss.model, images, pace, **{key: given[key] for key in OF_RECIPE})
    micro_batch = given.get("micro_batch")
    plan = Plan(given["epochs"], given["max_steps"], batches.count, given["time_budget"], given["accumulate"])
    average = Average(robust_loss, recipe.ema) if recipe.ema else None
    precision = chosen_precision(given["precision"], place.device)
    first = distributed.rank() == 0
    return Training(
        Stepper(robust_loss, plan, recipe, precision=precision, ramp=ramp, average=average, micro_batch=micro_batch),
        batches,
        Journal(place.folder, chosen_tracker(given["log"], place.folder)) if first else Journal(),
        folder=place.folder,
        every=given["checkpoint_every"],
        on_epoch=given["on_epoch"],
        **more,
    )


@contextmanager
def checkpointed_if(given: Mapping[str, Any]) -> Iterator[None]:
    """The model's blocks checkpointed meanwhile, where that is asked for."""
    if not given["checkpointing"]:
        yield
        return
    progress = given["progress"]
    with checkpointed(given["model"]) as count:
        what = f"{count} blocks compute their activations again in the backward pass"
        tell(what if count else "the model has no blocks in sequence, so there is nothing to checkpoint", progress)
        yield


def taken(training: Training, given: Mapping[str, Any]) -> None:
    """Take all the steps of a run, from where the one in its folder was killed if that is asked for."""
    facts = {} if training.folder is None else _facts(training, given)
    resumed = training.begin(facts, resume=given["resume"])
    try:
        choose(training, given, resumed=resumed)
        training.run(progress=given["progress"])
    finally:
        training.robust_loss.passes.compile("no")


def _facts(training: Training, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the run is asked to do, with what, on what: all that is needed to repeat it but model and data themselves."""
    asked = {key: value for key, value in given.items() if key not in run_folder.FREE}
    return {
        "run": "pretrain" if "images" in given else "harden",
        "arguments": asked,
        "objects": [key for key, value in asked.items() if not run_folder.is_plain(value)],
        "loaders": [key for key in LOADERS if given.get(key) is not None],
        "data": training.batches.facts(),
        "start": fingerprint(training.robust_loss.model),
        "device": str(training.stepper.device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
