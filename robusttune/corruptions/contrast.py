"""Contrast: less of it."""

from torch import Tensor

from robusttune.corruptions import Corruption

__all__ = ["contrast"]

LARGE = (0.4, 0.3, 0.2, 0.1, 0.05)
LEVELS = {32: (0.75, 0.5, 0.4, 0.3, 0.15), 64: LARGE, 224: LARGE}


def apply(images: Tensor, share: float) -> Tensor:
    """Multiply the distance of images (N,C,H,W) from the mean of each channel by `share`."""
    means = images.mean((2, 3), keepdim=True)
    return (images - means) * share + means


contrast = Corruption("contrast", "digital", LEVELS, apply)
