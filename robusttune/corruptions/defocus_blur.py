"""Defocus blur: each point becomes a disk."""

from functools import lru_cache

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor

from robusttune.corruptions import Corruption
from robusttune.corruptions._filters import convolved

__all__ = ["defocus_blur"]

LEVELS = {  # radius of the disk in pixels, and sigma of the blur of its rim
    32: ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)),
    64: ((0.5, 0.6), (1.0, 0.1), (1.5, 0.1), (2.5, 0.01), (3.0, 0.1)),
    224: ((3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5)),
}
LARGE = 8


def apply(images: Tensor, level: tuple[float, float]) -> Tensor:
    """Convolve images (N,C,H,W) with a disk of this radius and with a rim of this softness."""
    return convolved(images, _disk(*level, images.device))


@lru_cache(maxsize=32)
def _disk(radius: float, softness: float, device: torch.device) -> Tensor:
    """Return the disk (K,K), with the sum 1, on the smallest square that holds it."""
    reach, rim = (LARGE, 1) if radius <= LARGE else (int(radius), 2)
    axis = torch.arange(-reach, reach + 1, dtype=torch.float32)
    disk = (axis[:, None] ** 2 + axis**2 <= radius**2).float()
    size = (2 * rim + 1, 2 * rim + 1)
    soft = gaussian_blur2d((disk / disk.sum())[None, None], size, (softness, softness), border_type="reflect")[0, 0]
    # Small images are narrower than the square that the published program draws on.
    empty = int((soft.sum(0)[: reach + 1] > 0).int().argmax())
    return soft[empty : 2 * reach + 1 - empty, empty : 2 * reach + 1 - empty].to(device)


defocus_blur = Corruption("defocus_blur", "blur", LEVELS, apply)
