"""Shot noise: each value becomes a Poisson count of photons."""

import torch
from torch import Tensor

from robusttune.corruptions import Corruption, forked

__all__ = ["shot_noise"]

LEVELS = {32: (500, 250, 100, 75, 50), 64: (250, 100, 50, 30, 15), 224: (60, 25, 12, 5, 3)}


def draw(image: Tensor, photons: float, generator: torch.Generator) -> tuple[Tensor]:
    """Draw the number of photons for each value (C,H,W); white receives `photons` on average."""
    # Poisson draws a data-dependent number of random numbers, which must not change those of later images.
    return (torch.poisson(image.clamp_min(0) * photons, generator=forked(generator)),)


def apply(images: Tensor, photons: float, counts: Tensor) -> Tensor:
    """Scale the counts (N,C,H,W) to images."""
    return counts / photons


shot_noise = Corruption("shot_noise", "noise", LEVELS, apply, draw)
