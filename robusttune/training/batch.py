"""Batches: as a loader yields them, and as they are ready for the attack."""

from typing import NamedTuple

import torch
from torch import Tensor

from robusttune.tasks._heads import Part


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
        """The batch on a device, without waiting for the copies."""
        return LoadedBatch(*(None if each is None else each.to(device, non_blocking=True) for each in self))  # type: ignore[arg-type]


class PreparedBatch(NamedTuple):
    """A batch ready for the attack.

    Attributes:
        images: pixels (N,C,H,W) on [0,1], augmented in train mode.
        labels: (N,) or soft (N,K); None if unlabelled.
        shared: draws of the tasks that alter the images themselves.
        parts: draws of the tasks with views of their own.
    """

    images: Tensor
    labels: Tensor | None
    shared: list[Part]
    parts: list[Part]


def summed_losses(
    robust: Tensor | None, losses: list[tuple[Part, Tensor]], images: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch, and the mean loss of each task, unweighted and detached, over the images that drew it.

    Args:
        robust: the robust classification loss; None without an objective.
        losses: each part of the batch with its losses (M,).
        images: how many images the pretext losses are means over.
    """
    total: Tensor | float = 0.0 if robust is None else robust
    by_task: dict[str, list[Tensor]] = {}
    for part, loss in losses:
        # An empty part has loss 0 and still reaches its head: DDP counts a parameter without gradient as an error.
        total = total + part.weight * loss.sum() / images
        by_task.setdefault(part.task, []).append(loss.detach())
    means = {name: torch.cat(values) for name, values in by_task.items()}
    return torch.as_tensor(total), {
        name: values.mean() if len(values) else values.sum() for name, values in means.items()
    }
