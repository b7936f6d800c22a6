"""Checks of the arguments and of the first batch, before any weight changes."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robusttune.data.batches import check_channels, check_classes, errors_at, first_batch, unpacked
from robusttune.data.class_names import doubt_of_outputs
from robusttune.data.loaders import check_loader
from robusttune.data.pixels import find_pixels
from robusttune.data.transforms import find_statistics, same_statistics
from robusttune.measuring.chance import UNTRAINED, first_guess
from robusttune.model.borrowing import evaluating
from robusttune.model.checks import check_batch_norm, check_model
from robusttune.model.devices import device_of
from robusttune.norms import canonical, default_eps
from robusttune.run import distributed
from robusttune.run.files import STATE
from robusttune.run.log import warn
from robusttune.run.settings import shown_radius
from robusttune.run.tracking import check_log
from robusttune.tasks._weights import felt
from robusttune.threat import ThreatModel
from robusttune.training.criterion import check_criterion
from robusttune.training.presets import for_purpose
from robusttune.training.robust_loss import RobustLoss
from robusttune.training.settings import PixelSettings, RunSettings, Speed
from robusttune.types import Loader

if TYPE_CHECKING:
    from robusttune.training.loop import Training

TRAIN = f"{UNTRAINED}pass finetune=EPOCHS to train it first, or load trained weights"
GREY = 0.5  # in linf, every image is within this distance of plain grey
MANY = 32  # labels that are hardly alike by chance
LONGER = "the fine-tuning has not taught it these classes: pass a larger finetune=, or look at the labels"


def check_arguments(model: nn.Module, settings: RunSettings) -> None:
    """Raise a ValueError for an argument of `harden` that does not fit, as far as it shows without running the model."""
    loaders, epochs = settings.loaders, settings.length.epochs
    check_model(model)
    check_log(settings.output.log, settings.output.out)
    if settings.learning.objective is None:
        raise ValueError(
            "objective is None, but harden trains a classifier: leave it out, or use pretrain for the pretext tasks alone"
        )
    check_checkpointing(settings)
    check_loader(loaders.loader, passes=epochs)
    for name, loader in (("val_loader", loaders.val_loader), ("unlabeled_loader", loaders.unlabeled_loader)):
        if loader is not None:
            check_loader(loader, name, passes=1 + epochs)
    if loaders.unlabeled_loader is not None and loaders.teacher is None and not felt(settings.learning.task_weights):
        lacking = "the weights of all tasks are 0" if settings.learning.tasks else "there are no tasks"
        raise ValueError(
            f"unlabeled_loader= without a teacher is for the pretext losses, but {lacking}: pass teacher='self', which "
            "labels the images, or tasks= with a weight above 0"
        )
    if loaders.unlabeled_loader is not None and loaders.teacher is not None:
        check_loader(loaders.loader, passes=2)
    for_purpose(settings.adversary.purpose, None, "auto")  # refuses an unknown purpose


def check_checkpointing(settings: RunSettings) -> None:
    """Raise a ValueError for settings that cannot be combined with `checkpointing`."""
    checkpointing = settings.speed.checkpointing
    if not isinstance(checkpointing, bool):
        raise ValueError(f"checkpointing is {checkpointing!r}, but it must be True or False")
    for name, value in (("awp", settings.adversary.awp), ("compile", settings.speed.compile)):
        if checkpointing and value not in (0, False, "auto"):
            raise ValueError(
                f"checkpointing computes activations again in the backward pass, which {name}={value} does not allow: "
                "leave one of them out"
            )


def check_choices(speed: Speed) -> None:
    """Raise a ValueError for choices that are neither True, False nor "auto"."""
    for name, choice in (("compile", speed.compile), ("tune", speed.tune)):
        if not isinstance(choice, bool) and choice != "auto":
            raise ValueError(f"{name} is {choice!r}, but it must be True, False or 'auto'")


def check_first(robust_loss: RobustLoss, images: Tensor, labels: Tensor) -> None:
    """Run the loss on the first batch, in eval mode, before any weight changes."""
    classes, criterion = robust_loss.classifier.classes, getattr(robust_loss.objective, "criterion", None)
    check_classes(labels, classes)
    if criterion is not None:
        check_criterion(criterion, labels, classes, device_of(robust_loss))
    check_batch_norm(robust_loss.model, len(images))
    calls = robust_loss.calls
    with torch.no_grad(), evaluating(robust_loss.model):
        device = device_of(robust_loss)
        robust_loss(images[:2].to(device), labels[:2].to(device))
    robust_loss.calls = calls  # so that the first step draws the same random numbers as in the user's loop


def check_held(robust_loss: RobustLoss, loader: Loader, pixels: PixelSettings, channels: int) -> None:
    """Run the loss on the first held-out batch, which must have the channels and the pixel space of the loader's images."""
    space, device, normalized = robust_loss.pixels, device_of(robust_loss), pixels.normalized
    statistics = (space.mean.cpu(), space.std.cpu()) if space.known else (None, None)
    theirs = find_statistics(loader) if pixels.mean is None and space.known else (None, None)
    with errors_at("val_loader"):
        images, labels = unpacked(first_batch(loader, "val_loader"))
        check_classes(labels, robust_loss.classifier.classes)
        check_channels(images, channels)
        if theirs[0] is not None and not same_statistics(theirs, statistics):
            raise ValueError(f"its Normalize has mean={theirs[0]} and std={theirs[1]}, but in the loader {space}")
        held = (
            find_pixels(images, mean=statistics[0], std=statistics[1], normalized=normalized)
            if theirs[0] is None
            else find_pixels(images, loader, normalized=normalized)
        )
        if images.dtype != torch.uint8 and held.normalized != space.normalized:
            raise ValueError(
                f"{held}, but in the loader {space}: use the same transform in both, apart from its random parts"
            )
        with torch.no_grad(), evaluating(robust_loss):
            robust_loss(images[:2].to(device), labels[:2].to(device))


def check_start(training: "Training", settings: RunSettings) -> None:
    """Warn of a radius that no model withstands, and of a model that seems not to be trained on the loader's classes.

    Raises:
        ValueError: the model has fewer outputs than the loader's data set has classes.
    """
    robust_loss, output, (images, labels) = training.robust_loss, settings.output, training.batches.peeked
    hopeless = doubt_of_radius(robust_loss.threat, tuple(images.shape[1:]))
    if hopeless is not None and distributed.rank() == 0:
        warn(hopeless, output.progress)
    if labels is None:
        return
    of_outputs = doubt_of_outputs(settings.loaders.loader, robust_loss.classifier.classes)
    of_labels = doubt_of_labels(labels) if distributed.rank() == 0 else None
    for doubt in (of_outputs, of_labels):
        if doubt is not None and not settings.length.finetune:  # else the fine-tuning has said it
            warn(doubt, output.progress)
    resumed = output.resume and output.out is not None and (Path(output.out) / STATE).exists()
    if resumed or settings.adversary.eps == 0:
        return
    guess = first_guess(robust_loss.model, robust_loss.pixels, images, labels, training.batches.loader, output.seed)
    training.validation.knew, training.validation.right_before = guess.better(), guess.right / max(guess.images, 1)
    if guess and distributed.rank() == 0:
        warn(f"{guess}: {LONGER if settings.length.finetune else TRAIN}", output.progress)


def doubt_of_radius(threat: ThreatModel, shape: tuple[int, ...]) -> str | None:
    """Return a warning if the adversary may turn each image (C,H,W) into plain grey, or None.

    Example:
        >>> doubt_of_radius(ThreatModel("linf", 8 / 255), (3, 32, 32))
        >>> doubt_of_radius(ThreatModel("linf", 0.5), (3, 32, 32))[:17]
        'eps is 0.5 for li'
    """
    if canonical(threat.norm) != "linf" or threat.eps < GREY:
        return None
    return (
        f"eps is {threat.eps:g} for linf: each pixel may change by half of the way from black to white, so every image can be "
        f"turned into plain grey, and no model withstands that. Customary at this size are "
        f"{shown_radius(default_eps('linf', shape))} in linf and {default_eps('l2', shape):.3g} in l2: if you meant l2, pass norm='l2'"
    )


def doubt_of_labels(labels: Tensor) -> str | None:
    """Return a warning if a batch of labels (N,) is of one class alone, as in a loader that is not shuffled, or None.

    Example:
        >>> doubt_of_labels(torch.tensor([0, 1] * 32))
        >>> doubt_of_labels(torch.full((64,), 3))[:43]
        'all 64 images of the first batch have label'
    """
    if len(labels) < MANY or bool((labels != labels[0]).any()):
        return None
    return (
        f"all {len(labels)} images of the first batch have label {int(labels[0])}: if the loader gives images sorted by class, "
        "pass one with shuffle=True, as steps of a single class each ruin a model"
    )
