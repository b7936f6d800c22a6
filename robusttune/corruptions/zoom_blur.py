"""The camera moved toward the object."""

import numpy as np
from torch import Tensor

from robusttune.corruptions import Corruption
from robusttune.corruptions._filters import enlarged

__all__ = ["zoom_blur"]

SMALL = ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01))
LEVELS = {  # up to where, and by how much, the factor grows
    32: SMALL,
    64: SMALL,
    224: ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
}


def apply(images: Tensor, level: tuple[float, float]) -> Tensor:
    """The mean of images (N,C,H,W) and their enlargements."""
    # Not 1 + i·step: arange's own rounding decides about the size of some enlargements.
    factors = np.arange(1, *level).tolist()
    total = images.clone()
    for factor in factors:
        total += enlarged(images, factor)
    return total / (len(factors) + 1)


zoom_blur = Corruption("zoom_blur", "blur", LEVELS, apply)
