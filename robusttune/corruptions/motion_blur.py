"""Motion blur: the camera moves sideways."""

import torch
from torch import Tensor

from robusttune.corruptions import Corruption
from robusttune.corruptions._filters import drawn_out

__all__ = ["motion_blur"]

LEVELS = {  # radius and sigma in pixels
    32: ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5)),
    64: ((10, 1.0), (10, 1.5), (10, 2.0), (10, 2.5), (12, 3.0)),
    224: ((10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0)),
}
STEEPEST = 45.0


def draw(image: Tensor, level: tuple[int, float], generator: torch.Generator) -> tuple[Tensor]:
    """Draw the direction () in degrees."""
    return (torch.empty((), device=image.device).uniform_(-STEEPEST, STEEPEST, generator=generator),)


def apply(images: Tensor, level: tuple[int, float], angles: Tensor) -> Tensor:
    """Blur images (N,C,H,W) along their angles (N,)."""
    return drawn_out(images, angles, *level)


motion_blur = Corruption("motion_blur", "blur", LEVELS, apply, draw)
