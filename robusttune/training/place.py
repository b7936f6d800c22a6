"""The place of a run: the borrowed model on its device, the folder, the memory format, activation checkpointing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from robusttune.data.epochs import Batches
from robusttune.data.pixels import Pixels
from robusttune.model.activation_checkpointing import checkpointed
from robusttune.model.borrowing import borrowed, differentiable
from robusttune.model.devices import chosen_device, dtype_of
from robusttune.model.memory_format import chosen_format, formatted
from robusttune.run import distributed, termination
from robusttune.run import folder as run_folder
from robusttune.run.files import RUN
from robusttune.run.log import FILE, Journal, tell
from robusttune.run.tracking import Tracking, tracking
from robusttune.training.checks import check_choices
from robusttune.training.micro_batches import OutOfMemory
from robusttune.training.precision import autocast, chosen_precision
from robusttune.training.recipe import lent
from robusttune.training.settings import RunSettings, Speed


class Place(NamedTuple):
    """The device of a run, the folder that it writes to (None for none), and its run in a tracker of experiments."""

    device: torch.device
    folder: Path | None
    tracking: Tracking

    def journal(self, settings: RunSettings) -> Journal:
        """Begin the run in the tracker, and return the journal of its epochs; other processes than the first write nothing."""
        if distributed.rank():
            return Journal()
        unwritten = {"model", *vars(settings.loaders), "on_epoch", "notes", "log"}
        arguments = settings.arguments(name for name in settings.names if name not in unwritten)
        return Journal(self.folder, self.tracking.begin(settings.function, arguments))


@contextmanager
def borrowed_model(model: nn.Module, settings: RunSettings) -> Iterator[Place]:
    """Join the process group and borrow the model for a run; restores its weights if anything is raised."""
    speed, output = settings.speed, settings.output
    check_choices(speed)
    device = distributed.join(chosen_device(model, speed.device))
    with (
        run_folder.prepared(output.out, output.resume, trains=True) as folder,
        differentiable(),
        autocast(device, None),  # the run has a precision of its own
        termination.awaited(),
        run_folder.noted_on_failure(folder),
        borrowed(model, device, output.seed),
        memory_in_words(speed.micro_batch),
        lent(settings.updates),
        tracking(output.log, folder) as tracked,
    ):
        yield Place(device, folder, tracked)
        if folder is not None:
            for file in (RUN, FILE):
                tracked.attach(file, folder / file)


@contextmanager
def memory_in_words(micro_batch: int | None) -> Iterator[None]:
    """Say what to do where memory is used up inside this context.

    Raises:
        torch.OutOfMemoryError: with advice, instead of torch's alone.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        now = "whole batches go" if micro_batch is None else f"{micro_batch} images go"
        fits = error.fits if isinstance(error, OutOfMemory) else 0
        smaller = f"micro_batch={fits}, which was tried and fits" if fits else "a smaller micro_batch="
        raise torch.OutOfMemoryError(
            f"out of memory: {now} through the model at once; pass {smaller} (the same training, but for batch norms, which "
            "normalise by it), checkpointing=True, or a loader with smaller batches; robusttune.estimate(…).largest_batch says "
            f"what fits ({error})"
        ) from error


@contextmanager
def laid_out(model: nn.Module, batches: Batches, pixels: Pixels, speed: Speed, device: torch.device) -> Iterator[None]:
    """Keep the model in the memory format that `speed` asks for, or that the model can take, inside this context."""
    images = batches.peeked[0][:2]
    inputs = pixels.inputs(pixels.pixels(images.cpu())).to(device, dtype_of(model))
    folds = speed.tune is not False and not speed.checkpointing
    may_fold = folds or chosen_precision(speed.precision, device).name != "fp32"
    with formatted(model, chosen_format(speed.channels_last, model, inputs, may_fold=may_fold)):
        yield


@contextmanager
def blocks_checkpointed(model: nn.Module, speed: Speed, *, show: bool) -> Iterator[None]:
    """Use activation checkpointing for the model's blocks inside this context, if `speed` asks for it."""
    if not speed.checkpointing:
        yield
        return
    with checkpointed(model) as count:
        line = f"{count} blocks compute their activations again in the backward pass"
        tell(line if count else "the model has no blocks in sequence, so there is nothing to checkpoint", show)
        yield
