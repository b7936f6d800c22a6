"""Brightness: more light."""

from torch import Tensor

from robusttune.corruptions import Corruption

__all__ = ["brightness"]

LEVELS = {
    32: (0.05, 0.1, 0.15, 0.2, 0.3),
    64: (0.1, 0.2, 0.3, 0.4, 0.5),
    224: (0.1, 0.2, 0.3, 0.4, 0.5),
}


def apply(images: Tensor, more: float) -> Tensor:
    """Raise the value (the largest channel) of images (N,C,H,W) by `more`, with the same hue and saturation."""
    value = images.amax(1, keepdim=True)
    brighter = (value + more).clamp_max(1)
    black = value == 0
    return (images * (brighter / value.masked_fill(black, 1.0))).where(~black, brighter)


brightness = Corruption("brightness", "weather", LEVELS, apply)
