"""Noise of counted light."""

import torch
from torch import Tensor

from robusttune.corruptions import Corruption, forked

__all__ = ["shot_noise"]

LEVELS = {32: (500, 250, 100, 75, 50), 64: (250, 100, 50, 30, 15), 224: (60, 25, 12, 5, 3)}


def draw(image: Tensor, photons: float, generator: torch.Generator) -> tuple[Tensor]:
    """How many photons fall on each value (C,H,W), where white receives `photons` on average."""
    # How many random numbers Poisson takes depends on the values, and must not move the chance of later images.
    return (torch.poisson(image.clamp_min(0) * photons, generator=forked(generator)),)


def apply(images: Tensor, photons: float, counts: Tensor) -> Tensor:
    """The counts (N,C,H,W) as images."""
    return counts / photons


shot_noise = Corruption("shot_noise", "noise", LEVELS, apply, draw)
