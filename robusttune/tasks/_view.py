"""What a pretext task makes of images, and the index maps that most of them are."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class View(NamedTuple):
    """One random draw of a pretext task, held fixed while images change under an attack.

    Attributes:
        of: the differentiable map images (N,C,H,W) -> views (N,C,H,W).
        targets: what the head should say of each view: (N,), below `classes`.
        classes: how many answers are possible for these images (a head may have more outputs, which are left out).
    """

    of: Callable[[Tensor], Tensor]
    targets: Tensor
    classes: int


def reindex(images: Tensor, source: Tensor) -> Tensor:
    """Images whose pixel p is pixel source[n, p] of image n: an exact map with an exact gradient.

    Args:
        images: (N,C,H,W), in any memory format, which is kept.
        source: (N,H·W) of indices into the flattened pixels.
    """
    channels_last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    index = source[:, None].expand(-1, images.shape[1], -1)
    moved = images.flatten(2).gather(2, index).reshape(images.shape)
    return moved.contiguous(memory_format=torch.channels_last) if channels_last else moved


def pixel_numbers(shape: torch.Size | tuple[int, ...]) -> Tensor:
    """The numbers 0 … H·W-1 laid out as an image of shape (…,H,W): (H,W)."""
    height, width = shape[-2:]
    return torch.arange(height * width).reshape(height, width)
