"""Zoom blur: the camera moves toward the object."""

import numpy as np
from torch import Tensor

from robusttune.corruptions import Corruption
from robusttune.corruptions._filters import enlarged

__all__ = ["zoom_blur"]

SMALL = ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01))
LEVELS = {  # end and step of the zoom factors, which start at 1
    32: SMALL,
    64: SMALL,
    224: ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
}


def apply(images: Tensor, level: tuple[float, float]) -> Tensor:
    """Average images (N,C,H,W) and their enlargements."""
    # Not 1 + i·step: the rounding of arange decides the size of some enlargements.
    factors = np.arange(1, *level).tolist()
    total = images.clone()
    for factor in factors:
        total += enlarged(images, factor)
    return total / (len(factors) + 1)


zoom_blur = Corruption("zoom_blur", "blur", LEVELS, apply)
