"""Saturation: paler or stronger colours."""

import torch
from torch import Tensor

from robusttune.corruptions import Corruption
from robusttune.corruptions._filters import grey

__all__ = ["saturate"]

LEVELS = {  # factor of the saturation, and the number added to it
    32: ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2)),
    64: ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (30.0, 0.2)),
    224: ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2)),
}


def apply(images: Tensor, level: tuple[float, float]) -> Tensor:
    """Change the saturation of images (N,C,H,W), with the same hue and value; grey becomes reddish if some is added.

    Images of one channel count as grey, and the result is converted to grey again.

    Raises:
        ValueError: images of neither one nor three channels.
    """
    times, plus = level
    channels = images.shape[1]
    if channels not in (1, 3):
        raise ValueError(f"saturate got images of {channels} channels, but 1 or 3 are needed: leave it out of names=")
    value = images.amax(1, keepdim=True)
    spread = value - images.amin(1, keepdim=True)
    is_grey = spread == 0
    saturation = spread / value.masked_fill(is_grey, 1.0)
    wanted = (saturation * times + plus).clamp(0, 1)
    factor = wanted / saturation.masked_fill(is_grey, 1.0)
    coloured = value - (value - images) * factor
    faded = value * (1 - wanted)
    # The hue of grey is 0, which is red.
    reddish = torch.cat([value, faded, faded], dim=1)
    if channels == 1:
        return grey(reddish)
    return reddish.where(is_grey, coloured)


saturate = Corruption("saturate", "digital", LEVELS, apply, extra=True)
