"""Fewer, larger pixels."""

from functools import lru_cache

import torch
from torch import Tensor

from robusttune.corruption import Corruption

__all__ = ["pixelate"]

LEVELS = {  # how many of the pixels of a side are left
    32: (0.95, 0.9, 0.85, 0.75, 0.65),
    64: (0.9, 0.8, 0.7, 0.6, 0.5),
    224: (0.6, 0.5, 0.4, 0.3, 0.25),
}
# Pillow rounds halves up, of which fp32 may miss some from below.
HALF = 0.5 + 1e-4


def apply(images: Tensor, left: float) -> Tensor:
    """Images (N,C,H,W) made smaller and large again by box filters in 8 bits, as Pillow does."""
    height, width = images.shape[-2:]
    small = [max(1, int(side * left)) for side in (height, width)]
    levels = _rounded(images * 255)
    for rows, columns in (small, (height, width)):
        across = _boxes(levels.shape[-1], columns, images.device)
        down = _boxes(levels.shape[-2], rows, images.device)
        levels = _rounded(down @ _rounded(levels @ across.T))
    return levels / 255


def _rounded(levels: Tensor) -> Tensor:
    return torch.floor(levels + HALF)


@lru_cache(maxsize=64)
def _boxes(before: int, after: int, device: torch.device) -> Tensor:
    """The weights (after,before) with which pixels become new ones: the mean of those whose centres a new one covers."""
    scale = before / after
    reach = max(scale, 1.0) / 2
    centres = (torch.arange(after, dtype=torch.float64) + 0.5) * scale
    distance = torch.arange(before, dtype=torch.float64) + 0.5 - centres[:, None]
    weights = ((distance > -reach) & (distance <= reach)).double()
    return (weights / weights.sum(1, keepdim=True)).float().to(device)


pixelate = Corruption("pixelate", "digital", LEVELS, apply)
