"""Batches of a loader, and their preparation for the attack."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from robusttune.augmentations import _augment as augmentation
from robusttune.data.batches import check_classes, check_images, checked_labels, sent
from robusttune.data.pixels import check_space, settle
from robusttune.model import seen_corruptions
from robusttune.model.checks import check_batch_norm, check_whole
from robusttune.model.devices import device_of
from robusttune.tasks._heads import Part

if TYPE_CHECKING:
    from robusttune.training.robust_loss import RobustLoss


class LoadedBatch(NamedTuple):
    """A batch of the loader, with images from `unlabeled_loader` beside it, if there are any.

    Attributes:
        images: (N,C,H,W).
        labels: (N,) or soft (N,K); None without an objective.
        unlabeled: (U,C,H,W).
    """

    images: Tensor
    labels: Tensor | None = None
    unlabeled: Tensor | None = None

    def to(self, device: torch.device) -> "LoadedBatch":
        """Copy the batch to a device, without waiting for the copies."""
        return LoadedBatch(*(None if part is None else sent(part, device) for part in self))  # type: ignore[arg-type]


class PreparedBatch(NamedTuple):
    """A batch ready for the attack.

    Attributes:
        images: pixels (N,C,H,W) on [0,1], augmented in train mode.
        labels: (N,) or soft (N,K); None if unlabelled.
        shared: draws of the tasks that alter the images themselves.
        parts: draws of the tasks with separate views.
    """

    images: Tensor
    labels: Tensor | None
    shared: list[Part]
    parts: list[Part]


def prepared_batch(
    robust_loss: "RobustLoss", images: Tensor, labels: Tensor | None, generator: torch.Generator
) -> PreparedBatch:
    """Check a batch, move it to the model's device, augment it in train mode, and let its tasks draw.

    Args:
        images: (N,C,H,W) as the loader yields them.
        labels: (N,) or soft (N,K); None if unlabelled.
        generator: on the CPU.

    Raises:
        ValueError: images or labels that do not fit the model, or are in another pixel space than the first batch.
    """
    check_batch(robust_loss, images, labels)
    device = device_of(robust_loss.model)
    pixels = robust_loss.pixels.pixels(images.to(device)).clone()
    if robust_loss.training:
        augment = augmentation.chosen_augment(robust_loss.augment, pixels)
        seen_corruptions.remember(robust_loss.model, () if augment is None else augment.overlaps)
        pixels = augmentation.applied(augment, pixels, generator)
    heads = robust_loss.heads
    beside = []
    if robust_loss.training:
        pixels, shared = heads.shared(pixels, generator)
    else:  # answers are judged, which are those to the images themselves
        shared, beside = [], [heads.whole(name, pixels, generator) for name in heads.sharing]
    if labels is not None:
        labels = checked_labels(labels, len(images)).to(device).clone()
    return PreparedBatch(pixels, labels, shared, heads.draw(pixels, generator) + beside)


def images_by_keyword(
    module: nn.Module, images: tuple[object, ...], named: dict[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """Rename the argument `pixel_values` of a call of RobustLoss to `images`, before its forward; a hook."""
    if "pixel_values" in named:
        named = {"images": named["pixel_values"], **{key: each for key, each in named.items() if key != "pixel_values"}}
    return images, named


def check_batch(robust_loss: "RobustLoss", images: Tensor, labels: Tensor | None) -> None:
    """Raise a ValueError for a batch that does not fit; on an accelerator only the first batch's values are read, as that waits."""
    check_images(images)
    if robust_loss.passes.model is not robust_loss.model:
        raise ValueError(
            "the model in RobustLoss was replaced, but its losses are computed with the model that it was made with, so the new one would "
            "learn nothing: make a new RobustLoss(model, …)"
        )
    if labels is None:
        check_felt(robust_loss)
    else:
        if robust_loss.objective is None:
            raise ValueError("labels were passed, but objective=None has only the pretext losses: leave the labels out")
        labels = checked_labels(labels, len(images))
        if labels.device.type == "cpu":
            check_classes(labels, robust_loss.classifier.classes)
    if robust_loss.training:
        check_batch_norm(robust_loss.model, len(images))
        if robust_loss.calls == 1:
            check_whole(robust_loss)
    space = robust_loss.pixels
    settle(space, images)
    if images.device.type == "cpu" or not space.seen:
        check_space(space, images)
        space.seen = True


def check_felt(robust_loss: "RobustLoss") -> None:
    """Raise a ValueError if images without labels would teach the model nothing."""
    heads = robust_loss.heads
    if not heads.drawn and not heads.sharing:
        lacking = "the weights of all tasks are 0" if heads.alone else "there are no tasks"
        raise ValueError(
            f"images without labels are for the pretext losses, but {lacking}: pass tasks= with a weight above 0, or labels, "
            "which a teacher gives to unlabeled="
        )


def summed_losses(
    robust: Tensor | None, losses: list[tuple[Part, Tensor]], images: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of a batch, and the mean loss of each task over the images that drew it, unweighted and detached.

    A task of weight 0 adds the gradient of its mean loss, for its head, but nothing to the loss itself.

    Args:
        robust: the robust classification loss; None without an objective.
        losses: each part of the batch with its losses (M,).
        images: the number of images that the pretext losses are means over.
    """
    total: Tensor | float = 0.0 if robust is None else robust
    by_task: dict[str, list[Tensor]] = {}
    for part, loss in losses:
        # An empty part has loss 0 and still reaches its head: DDP counts a parameter without gradient as an error.
        total = total + (part.weight * loss.sum() / images if part.weight else _without_value(loss))
        by_task.setdefault(part.task, []).append(loss.detach())
    means = {name: torch.cat(values) for name, values in by_task.items()}
    return torch.as_tensor(total), {
        name: values.mean() if len(values) else values.sum() for name, values in means.items()
    }


def _without_value(losses: Tensor) -> Tensor:
    """Return 0 with the gradient of the mean of losses (M,)."""
    mean = losses.sum() / max(1, len(losses))
    return mean - mean.detach()
