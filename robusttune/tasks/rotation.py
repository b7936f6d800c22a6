"""Rotation: predict by how many quarter turns the image was rotated."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from robusttune.tasks import View, pixel_numbers, reindex

__all__ = ["rotation"]


@dataclass(frozen=True)
class rotation:
    """Predict by how many quarter turns each image was rotated; images that are not square get half turns only.

    Source: Gidaris et al., arXiv:1803.07728; beside adversarial training: Hendrycks et al., arXiv:1906.12340.

    Example:
        >>> images = torch.arange(8.0).reshape(2, 1, 2, 2)
        >>> view = rotation().draw(images, torch.Generator(), patch_size=None)
        >>> view.of(images).shape, view.classes
        (torch.Size([2, 1, 2, 2]), 4)
    """

    name = "rotation"
    classes = 4
    shares_forward = False

    def draw(self, images: Tensor, generator: torch.Generator, *, patch_size: int | None) -> View:
        """Draw one random turn for each image (N,C,H,W)."""
        turns = _turns(*images.shape[-2:])
        choice = torch.randint(len(turns), (len(images),), generator=generator)
        source = turns[choice].to(images.device, non_blocking=True)
        return View(lambda pixels: reindex(pixels, source), choice.to(images.device, non_blocking=True), len(turns))


@lru_cache(maxsize=8)
def _turns(height: int, width: int) -> Tensor:
    """Return the source pixel of each pixel, for each turn: (turns,H·W)."""
    quarter_turns = (0, 1, 2, 3) if height == width else (0, 2)
    numbers = pixel_numbers((height, width))
    return torch.stack([torch.rot90(numbers, turns, (0, 1)).flatten() for turns in quarter_turns])
