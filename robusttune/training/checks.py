"""Whether a run can be taken, tried before any weight changes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from robusttune.data.batches import check_channels, check_classes, first_batch, located, unpacked
from robusttune.data.loaders import check_loader
from robusttune.data.pixels import find_pixels
from robusttune.model.borrowing import evaluating, trainable
from robusttune.model.checks import check_model, has_batch_norm
from robusttune.model.devices import device_of
from robusttune.run.settings import check_settings
from robusttune.training.robust_loss import RobustLoss


def check_arguments(given: Mapping[str, Any]) -> None:
    """Raise a ValueError for any argument that can be seen not to fit without running the model."""
    check_model(given["model"])
    check_settings(given)
    check_memory(given)
    check_loader(given["loader"], passes=given["epochs"])
    for name in ("val_loader", "unlabeled_loader"):
        if given[name] is not None:
            check_loader(given[name], name, passes=1 + given["epochs"])
    if given["unlabeled_loader"] is not None and not given["tasks"]:
        raise ValueError(
            "unlabeled_loader= is for the pretext losses, but there are no tasks: name some, or leave it out"
        )


def check_memory(given: Mapping[str, Any]) -> None:
    """Raise a ValueError for what cannot be had together with checkpointing."""
    if not isinstance(given["checkpointing"], bool):
        raise ValueError(f"checkpointing is {given['checkpointing']!r}, but it must be True or False")
    for name in ("awp", "compile"):
        if given["checkpointing"] and given[name] not in (0, False, "auto"):
            raise ValueError(
                f"checkpointing computes activations again with the model as it then is, which {name}={given[name]} does "
                "not allow: leave one of them out"
            )


def check_first(robust_loss: RobustLoss, images: Tensor, labels: Tensor) -> None:
    """Try the first batch in eval mode, before any weight changes."""
    check_classes(labels, robust_loss.classifier.classes)
    with trainable(robust_loss.model):
        if len(images) == 1 and has_batch_norm(robust_loss.model):
            raise ValueError("a batch of one image cannot be normalised by batch norm: use a batch size of at least 2")
    calls = robust_loss.calls
    with torch.no_grad(), evaluating(robust_loss.model):
        device = device_of(robust_loss)
        robust_loss(images[:2].to(device), labels[:2].to(device))
    robust_loss.calls = calls  # so that the first step draws what it would draw in a loop of the user's own


def check_held(robust_loss: RobustLoss, loader: Any, normalized: bool | None, channels: int) -> None:
    """Try the first batch of held-out images, which must have the channels and be in the space of the loader's."""
    space, device = robust_loss.pixels, device_of(robust_loss)
    statistics = (space.mean.cpu(), space.std.cpu()) if space.known else (None, None)
    with located("val_loader"):
        images, labels = unpacked(first_batch(loader, "val_loader"))
        check_classes(labels, robust_loss.classifier.classes)
        check_channels(images, channels)
        own = find_pixels(images, mean=statistics[0], std=statistics[1], normalized=normalized)
        if images.dtype != torch.uint8 and own.normalized != space.normalized:
            raise ValueError(f"{own}, but in the loader {space}: give both the same transform, but for what is random")
        with torch.no_grad(), evaluating(robust_loss):
            robust_loss(images[:2].to(device), labels[:2].to(device))
