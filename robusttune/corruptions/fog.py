"""Fog of uneven density: a diamond-square fractal."""

import torch
from torch import Tensor

from robusttune.corruptions import Corruption

__all__ = ["fog"]

LEVELS = {  # strength, and decay: the square is the factor by which each finer layer is weaker
    32: ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)),
    64: ((0.4, 3.0), (0.7, 3.0), (1.0, 2.5), (1.5, 2.0), (2.0, 1.75)),
    224: ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)),
}
SMALLEST = 32


def draw(image: Tensor, level: tuple[float, float], generator: torch.Generator) -> tuple[Tensor]:
    """Draw heights from -1 to 1 (S²-1,), from the coarsest layer to the finest."""
    side = _side(image)
    return (torch.empty(side**2 - 1, device=image.device).uniform_(-1, 1, generator=generator),)


def apply(images: Tensor, level: tuple[float, float], heights: Tensor) -> Tensor:
    """Add fog to images (N,C,H,W), and scale them to the brightest value they had."""
    strength, decay = level
    height, width = images.shape[-2:]
    density = plasma(heights, _side(images), decay)[:, None, :height, :width]
    brightest = images.amax((1, 2, 3), keepdim=True)
    return (images + strength * density) * brightest / (brightest + strength)


def plasma(heights: Tensor, side: int, decay: float) -> Tensor:
    """Compute the fractal (N,S,S) in [0,1] on a torus, where each layer is `decay²` times weaker than the one before.

    Each layer halves the grid: centres of squares are the mean of their four corners plus a height, then the middles of
    sides are the mean of their four neighbours plus a height.
    """
    field = heights.new_zeros(len(heights), side, side)
    step, amplitude, used = side, 1.0, 0
    while step > 1:
        half, count = step // 2, (side // step) ** 2
        grid = (len(heights), 3, side // step, side // step)
        centre, top, left = (heights[:, used : used + 3 * count].reshape(grid) * amplitude).unbind(1)
        corners = field[:, ::step, ::step]
        pairs = corners + corners.roll(-1, 1)
        centres = (pairs + pairs.roll(-1, 2)) / 4 + centre
        field[:, half::step, half::step] = centres
        field[:, ::step, half::step] = (centres + centres.roll(1, 1) + corners + corners.roll(-1, 2)) / 4 + top
        field[:, half::step, ::step] = (centres + centres.roll(1, 2) + corners + corners.roll(-1, 1)) / 4 + left
        step, amplitude, used = half, amplitude / decay**2, used + 3 * count
    lowest = field.amin((1, 2), keepdim=True)
    return (field - lowest) / (field.amax((1, 2), keepdim=True) - lowest)


def _side(images: Tensor) -> int:
    """Return the next power of two of the longer side, at least 32."""
    return max(SMALLEST, 1 << (max(images.shape[-2:]) - 1).bit_length())


fog = Corruption("fog", "weather", LEVELS, apply, draw)
