"""Gaussian noise, as of a sensor in low light."""

import torch
from torch import Tensor

from robusttune.corruptions import Corruption

__all__ = ["gaussian_noise"]

LEVELS = {
    32: (0.04, 0.06, 0.08, 0.09, 0.10),
    64: (0.04, 0.08, 0.12, 0.15, 0.18),
    224: (0.08, 0.12, 0.18, 0.26, 0.38),
}


def draw(image: Tensor, scale: float, generator: torch.Generator) -> tuple[Tensor]:
    """Draw a standard normal number for each value (C,H,W)."""
    return (torch.empty_like(image).normal_(generator=generator),)


def apply(images: Tensor, scale: float, noise: Tensor) -> Tensor:
    """Add the noise, times `scale`, to images (N,C,H,W)."""
    return images + noise * scale


gaussian_noise = Corruption("gaussian_noise", "noise", LEVELS, apply, draw)
