"""Fewer, larger pixels."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from robusttune.corruption import Corruption

__all__ = ["pixelate"]

LEVELS = {  # how many of the pixels of a side are left
    32: (0.95, 0.9, 0.85, 0.75, 0.65),
    64: (0.9, 0.8, 0.7, 0.6, 0.5),
    224: (0.6, 0.5, 0.4, 0.3, 0.25),
}


def apply(images: Tensor, left: float) -> Tensor:
    """Images (N,C,H,W) made smaller and large again by box filters in 8 bits, as Pillow does."""
    height, width = images.shape[-2:]
    rows, columns = (max(1, int(side * left)) for side in (height, width))
    levels = _shrunk(torch.round(images * 255), columns)
    levels = _shrunk(levels.mT, rows).mT
    # A box that is narrower than a pixel covers one centre only.
    levels = levels.index_select(3, _covered(columns, width, images.device)[0])
    return levels.index_select(2, _covered(rows, height, images.device)[0]) / 255


def _shrunk(levels: Tensor, after: int) -> Tensor:
    """Levels (N,C,H,W), whole numbers, with rows of `after` pixels: means of those whose centres a new one covers."""
    start, stop = _covered(levels.shape[-1], after, levels.device)
    # Sums of whole numbers are exact in fp32.
    sums = F.pad(levels.cumsum(-1), (1, 0))
    means = (sums.index_select(3, stop) - sums.index_select(3, start)) / (stop - start)
    return torch.floor(means + 0.5)


@lru_cache(maxsize=64)
def _covered(before: int, after: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each of `after` pixels, the first of `before` pixels whose centre it covers, and the one after the last."""
    scale = before / after
    centres = (torch.arange(after, dtype=torch.float64) + 0.5) * scale
    start = torch.floor(centres - max(scale, 1) / 2 + 0.5).long().clamp(0, before - 1)
    stop = torch.floor(centres + max(scale, 1) / 2 + 0.5).long().clamp(1, before)
    return start.to(device), torch.maximum(stop, start + 1).to(device)


pixelate = Corruption("pixelate", "digital", LEVELS, apply)
