"""Impulse noise: salt and pepper, separately in each channel."""

import torch
from torch import Tensor

from robusttune.corruptions import Corruption

__all__ = ["impulse_noise"]

LEVELS = {
    32: (0.01, 0.02, 0.03, 0.05, 0.07),
    64: (0.01, 0.02, 0.05, 0.08, 0.14),
    224: (0.03, 0.06, 0.09, 0.17, 0.27),
}


def draw(image: Tensor, amount: float, generator: torch.Generator) -> tuple[Tensor]:
    """Draw a uniform number for each value (C,H,W)."""
    return (torch.empty_like(image).uniform_(generator=generator),)


def apply(images: Tensor, amount: float, uniform: Tensor) -> Tensor:
    """Set half of the share `amount` of values of images (N,C,H,W) to 0, and half of it to 1."""
    return images.masked_fill(uniform < amount / 2, 0.0).masked_fill(uniform >= 1 - amount / 2, 1.0)


impulse_noise = Corruption("impulse_noise", "noise", LEVELS, apply, draw)
