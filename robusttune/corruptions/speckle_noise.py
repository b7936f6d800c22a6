"""Speckle noise: Gaussian noise in proportion to brightness, as in radar and ultrasound."""

import torch
from torch import Tensor

from robusttune.corruptions import Corruption

__all__ = ["speckle_noise"]

LEVELS = {
    32: (0.06, 0.1, 0.12, 0.16, 0.2),
    64: (0.15, 0.2, 0.25, 0.3, 0.35),
    224: (0.15, 0.2, 0.35, 0.45, 0.6),
}


def draw(image: Tensor, scale: float, generator: torch.Generator) -> tuple[Tensor]:
    """Draw a standard normal number for each value (C,H,W)."""
    return (torch.empty_like(image).normal_(generator=generator),)


def apply(images: Tensor, scale: float, noise: Tensor) -> Tensor:
    """Add the noise, times `scale` and times the images, to images (N,C,H,W)."""
    return images + images * noise * scale


speckle_noise = Corruption("speckle_noise", "noise", LEVELS, apply, draw, extra=True)
