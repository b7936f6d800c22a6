"""Snow: falling flakes over a paler image."""

import torch
from torch import Tensor

from robusttune.corruptions import Corruption
from robusttune.corruptions._filters import drawn_out, enlarged, floored, grey

__all__ = ["snow"]

Level = tuple[float, float, float, float, int, float, float]
LEVELS = {  # mean, spread and size of flakes, threshold of brightness, radius and sigma of their motion blur, blend
    32: (
        (0.1, 0.2, 1.0, 0.6, 8, 3.0, 0.95),
        (0.1, 0.2, 1.0, 0.5, 10, 4.0, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4.0, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6.0, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12.0, 0.8),
    ),
    64: (
        (0.1, 0.2, 1.0, 0.6, 8, 3.0, 0.8),
        (0.1, 0.2, 1.0, 0.5, 10, 4.0, 0.8),
        (0.15, 0.3, 1.75, 0.55, 10, 4.0, 0.7),
        (0.25, 0.3, 2.25, 0.6, 12, 6.0, 0.65),
        (0.3, 0.3, 1.25, 0.65, 14, 12.0, 0.6),
    ),
    224: (
        (0.1, 0.3, 3.0, 0.5, 10, 4.0, 0.8),
        (0.2, 0.3, 2.0, 0.5, 12, 4.0, 0.7),
        (0.55, 0.3, 4.0, 0.9, 12, 8.0, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8.0, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12.0, 0.55),
    ),
}
FALL = (-135.0, -45.0)


def draw(image: Tensor, level: Level, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw standard normal flakes (H,W), and the direction () of their fall in degrees."""
    flakes = torch.empty(image.shape[-2:], device=image.device).normal_(generator=generator)
    return flakes, torch.empty((), device=image.device).uniform_(*FALL, generator=generator)


def apply(images: Tensor, level: Level, flakes: Tensor, angles: Tensor) -> Tensor:
    """Make images (N,C,H,W) paler, and add the flakes, once as drawn and once rotated by 180 degrees."""
    mean, spread, size, threshold, radius, sigma, blend = level
    layer = enlarged((mean + spread * flakes)[:, None], size)
    layer = floored(layer.masked_fill(layer < threshold, 0.0))
    layer = floored(drawn_out(layer, angles, radius, sigma))
    pale = torch.maximum(images, grey(images) * 1.5 + 0.5)
    return blend * images + (1 - blend) * pale + layer + layer.flip(-2, -1)


snow = Corruption("snow", "weather", LEVELS, apply, draw)
