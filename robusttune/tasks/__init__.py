"""Self-supervised pretext tasks, one file each: a class whose instances draw views of images, see `Task`."""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from robusttune.tasks._view import View, pixel_numbers, reindex

__all__ = ["HEADS_ALONE", "TASKS", "Task", "TaskWeights", "TasksLike", "View", "pixel_numbers", "reindex"]

# Tasks that a model learns from, and their usual weights.
TASKS = {"rotation": 0.5, "jigsaw": 0.5}
# The same tasks for heads that are trained without changing the model.
HEADS_ALONE = dict.fromkeys(TASKS, 0.0)


class Task(Protocol):
    """The contract of a file in `tasks/`: a class whose instances draw views of images with known answers.

    The class can be called without arguments, so its settings have defaults.

    Attributes:
        name: key of the head and of the logged loss; for a file in `tasks/`, the file's name.
        classes: outputs of the head.
        shares_forward: True if the view replaces the image in the classification forward, whose features the head reads.
    """

    @property
    def name(self) -> str: ...
    @property
    def classes(self) -> int: ...
    @property
    def shares_forward(self) -> bool: ...

    def draw(self, images: Tensor, generator: torch.Generator, *, patch_size: int | None) -> View:
        """Draw one random view for each image.

        The view stays fixed while an attack changes the images, so its map from images to views draws nothing.

        Args:
            images: (N,C,H,W) in [0,1]; N may be 0.
            generator: source of all random numbers, on the CPU.
            patch_size: side of a vision transformer's patches in pixels, for tasks that move whole patches; None for
                other models.
        """


# The weight of each task's loss, by the task's name or by the task itself.
TaskWeights: TypeAlias = Mapping[str, float] | Mapping[str | Task, float]
# Pretext tasks as users write them: weights; names or objects alone, which take the weight that "auto" gives; "none" or None.
TasksLike: TypeAlias = TaskWeights | str | Task | Sequence[str | Task | TaskWeights] | None
