"""Micro-batches, which save memory: the parts of a batch, and the loss terms of the whole batch."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robusttune.model.checks import has_batch_norm
from robusttune.training.batch import LoadedBatch


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
