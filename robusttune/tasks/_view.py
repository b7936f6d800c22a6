"""Views of images for pretext tasks, and the index maps that compute most of them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class View(NamedTuple):
    """One random draw of a pretext task, which stays fixed while an attack changes the images.

    Attributes:
        of: differentiable map from images (N,C,H,W) to views (N,C,H,W); it draws no random numbers.
        targets: the right answer for each view: (N,), below `classes`.
        classes: number of possible answers for these images; a head may have more outputs, which are ignored.
        meaning: what the answers stand for, where it depends on the size of the images, such as the tiles of a jigsaw.
    """

    of: Callable[[Tensor], Tensor]
    targets: Tensor
    classes: int
    meaning: str = ""


def reindex(images: Tensor, source: Tensor) -> Tensor:
    """Move pixels: pixel p of the n-th result is pixel source[n, p] of image n. Values and gradients are exact.

    Args:
        images: (N,C,H,W), in any memory format, which is kept.
        source: (N,H·W) of indices into the flattened pixels.
    """
    channels_last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    index = source[:, None].expand(-1, images.shape[1], -1)
    moved = images.flatten(2).gather(2, index).reshape(images.shape)
    return moved.contiguous(memory_format=torch.channels_last) if channels_last else moved


def pixel_numbers(shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Return the numbers 0 … H·W-1, the indices of flattened pixels, for images of shape (…,H,W): (H,W)."""
    height, width = shape[-2:]
    return torch.arange(height * width).reshape(height, width)
