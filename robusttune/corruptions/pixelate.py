"""Pixelate: fewer, larger pixels."""

from functools import lru_cache

import torch
from torch import Tensor

from robusttune.corruptions import Corruption

__all__ = ["pixelate"]

LEVELS = {  # the share of a side's pixels that are left
    32: (0.95, 0.9, 0.85, 0.75, 0.65),
    64: (0.9, 0.8, 0.7, 0.6, 0.5),
    224: (0.6, 0.5, 0.4, 0.3, 0.25),
}
# Compensates rounding errors of fp32 just below a half; other fractions are farther away.
HALF = 0.5 + 1e-3


def apply(images: Tensor, share: float) -> Tensor:
    """Shrink and enlarge images (N,C,H,W) by box filters in 8 bits, as Pillow does."""
    height, width = images.shape[-2:]
    rows, columns = (max(1, int(side * share)) for side in (height, width))
    # Averaging rows is faster than averaging columns, so the images are transposed for the columns.
    levels = _shrunk(images.mT.contiguous(), columns, 255)
    levels = _shrunk(levels.mT.contiguous(), rows, 1) / 255
    # When enlarging, a box is narrower than a pixel and covers one centre.
    levels = levels.mT.contiguous().index_select(2, _nearest(columns, width, images.device))
    return levels.mT.contiguous().index_select(2, _nearest(rows, height, images.device))


def _shrunk(levels: Tensor, after: int, times: int) -> Tensor:
    """Reduce levels (N,C,H,W) to `after` rows, the rounded means, times `times`, of the rows whose centres a new row covers."""
    places, shares = _covered(levels.shape[2], after, times, levels.device)
    mean = levels.index_select(2, places[0]) * shares[0]
    for place, share in zip(places[1:], shares[1:], strict=True):
        mean.addcmul_(levels.index_select(2, place), share)
    return mean.add_(HALF).floor_()


@lru_cache(maxsize=64)
def _covered(before: int, after: int, times: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return, for each of `after` rows, the rows of `before` that it covers (T,after), and `times` their shares (T,after,1)."""
    scale = before / after
    centres = (torch.arange(after, dtype=torch.float64) + 0.5) * scale
    start = torch.floor(centres - max(scale, 1) / 2 + 0.5).long().clamp(0, before - 1)
    stop = torch.floor(centres + max(scale, 1) / 2 + 0.5).long().clamp(1, before)
    counts = (stop - start).clamp_min(1)
    taps = torch.arange(int(counts.max()))[:, None]
    shares = (taps < counts) * times / counts
    return (start + taps).clamp_max(before - 1).to(device), shares[..., None].float().to(device)


@lru_cache(maxsize=64)
def _nearest(before: int, after: int, device: torch.device) -> Tensor:
    """Return, for each of `after` rows, the row of fewer `before` whose centre it covers: (after,)."""
    return _covered(before, after, 1, device)[0][0].clone()


pixelate = Corruption("pixelate", "digital", LEVELS, apply)
