"""Micro-batches, which save memory: the parts of a batch, the loss terms of the whole batch, and how many images fit."""

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robusttune.model.checks import has_batch_norm
from robusttune.model.devices import device_of
from robusttune.run import distributed
from robusttune.training.batch import LoadedBatch

if TYPE_CHECKING:
    from robusttune.training.robust_loss import RobustLoss


def micro_batches(batch: LoadedBatch, size: int | None, model: nn.Module) -> list[LoadedBatch]:
    """Cut a batch into parts of nearly equal length, of at most `size` images; None keeps it whole.

    A part has at least two images where batch norm would have to normalise it.
    """
    count = 1 if size is None else _count(batch, size, least=2 if has_batch_norm(model) else 1)
    if count == 1:
        return [batch]
    images = batch.images.tensor_split(count)
    labels = [None] * count if batch.labels is None else batch.labels.tensor_split(count)
    unlabeled = [None] * count if batch.unlabeled is None else batch.unlabeled.tensor_split(count)
    return [LoadedBatch(*part) for part in zip(images, labels, unlabeled, strict=True)]


def _count(batch: LoadedBatch, size: int, *, least: int) -> int:
    images = len(batch.images)
    most = min(images, images if batch.unlabeled is None else len(batch.unlabeled)) // least
    return max(1, min(most, -(-images // size)))


def merged_terms(parts: Sequence[dict[str, Tensor]], images: Sequence[int]) -> dict[str, Tensor]:
    """Return the loss terms of a batch, weighted means of those of its parts.

    Args:
        parts: the loss terms of each part.
        images: the number of images of each part.
    """
    if len(parts) == 1:
        return parts[0]
    total = sum(images)
    merged = {}
    for key in parts[0]:
        values = [part[key].detach() for part in parts]
        shares = [value * (count / total) for value, count in zip(values, images, strict=True)]
        merged[key] = torch.cat(values) if key == "output" else sum(shares, torch.tensor(0.0))
    return merged


class OutOfMemory(torch.OutOfMemoryError):
    """Memory was used up; `fits` is the number of images that fit where they were tried, 0 if not even one does."""

    def __init__(self, error: torch.OutOfMemoryError, fits: int) -> None:
        super().__init__(str(error))
        self.fits = fits


@contextmanager
def fitting_counted(robust_loss: "RobustLoss", batch: LoadedBatch, micro_batch: int | None) -> Iterator[None]:
    """Count how many images of the batch fit, by trying halves, if memory runs out inside this context.

    Raises:
        OutOfMemory: instead of torch's error, with that number; of several processes each raises torch's own.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        if distributed.world() > 1:
            raise
        traceback.clear_frames(error.__traceback__)  # these hold the tensors of the step
        raise OutOfMemory(error, _how_many_fit(robust_loss, batch, micro_batch)) from error


def _how_many_fit(robust_loss: "RobustLoss", batch: LoadedBatch, micro_batch: int | None) -> int:
    robust_loss.passes.release()
    device, parameters = device_of(robust_loss), [each for each in robust_loss.parameters() if each.requires_grad]
    images = micro_batch or len(batch.images)
    while images > 1:
        images //= 2
        count = -(-len(batch.images) // images)
        part = LoadedBatch(*(None if each is None else each.tensor_split(count)[0] for each in batch)).to(device)  # type: ignore[arg-type]
        more = {} if part.unlabeled is None else {"unlabeled": part.unlabeled}
        # Batch norm refuses a single image.
        with suppress(torch.OutOfMemoryError, ValueError):
            torch.autograd.grad(robust_loss(part.images, part.labels, **more)["loss"], parameters, allow_unused=True)
            return images
    return 0
