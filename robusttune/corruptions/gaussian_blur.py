"""Gaussian blur."""

from torch import Tensor

from robusttune.corruptions import Corruption
from robusttune.corruptions._filters import smoothed

__all__ = ["gaussian_blur"]

LEVELS = {32: (0.4, 0.6, 0.7, 0.8, 1.0), 64: (0.5, 0.75, 1.0, 1.25, 1.5), 224: (1.0, 2.0, 3.0, 4.0, 6.0)}


def apply(images: Tensor, sigma: float) -> Tensor:
    """Smooth images (N,C,H,W) by a Gaussian of `sigma` pixels."""
    return smoothed(images, sigma)


gaussian_blur = Corruption("gaussian_blur", "blur", LEVELS, apply, extra=True)
