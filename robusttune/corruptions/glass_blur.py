"""Seen through frosted glass: pixels change places with near ones."""

import torch
from torch import Tensor

from robusttune.corruptions import Corruption
from robusttune.corruptions._filters import floored, smoothed

__all__ = ["glass_blur"]

LEVELS = {  # sigma of the blurs before and after, how far pixels move, how often
    32: ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    64: ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
    224: ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
}
# A chain of pixels that take from one another has at least n links with a chance of about 2^-n.
DOUBLINGS = 6


def draw(image: Tensor, level: tuple[float, int, int], generator: torch.Generator) -> tuple[Tensor]:
    """For each pass and pixel from where it takes its value: (passes,H,W,2) rows down and columns right."""
    _, reach, passes = level
    shape = (passes, *image.shape[-2:], 2)
    return (torch.randint(-reach, reach, shape, generator=generator, device=image.device),)


def apply(images: Tensor, level: tuple[float, int, int], offsets: Tensor) -> Tensor:
    """Images (N,C,H,W) blurred, with pixels moved, and blurred again."""
    sigma, reach, passes = level
    flat = floored(smoothed(images, sigma)).flatten(2)
    for number in range(passes):
        sources = _sources(offsets[:, number], reach)
        flat = flat.gather(2, sources[:, None].expand_as(flat))
    return smoothed(flat.view_as(images), sigma)


def _sources(offsets: Tensor, reach: int) -> Tensor:
    """Of each pixel, flat, the pixel whose value it has in the end: (N,H·W).

    The published program goes from the last pixel to the first and writes into the image that it reads from (it looks
    like an exchange of two pixels, but only one of them changes). So a pixel that takes from one which was changed
    before gets what that one took: chains, which are followed here in doubling steps.
    """
    count, height, width, _ = offsets.shape
    rows, columns = (torch.arange(side, device=offsets.device) for side in (height, width))
    inside = ((rows > reach) & (rows <= height - reach))[:, None] & ((columns > reach) & (columns <= width - reach))
    own = (rows[:, None] * width + columns).expand(count, -1, -1)
    moved = own + offsets[..., 0] * width + offsets[..., 1]
    source = torch.where(inside, moved, own).flatten(1)
    own = own.flatten(1)
    changed = inside.flatten().expand(count, -1).gather(1, source)
    follow = torch.where(changed & (source > own), source, own)
    for _ in range(DOUBLINGS):
        follow = follow.gather(1, follow)
    return source.gather(1, follow)


glass_blur = Corruption("glass_blur", "blur", LEVELS, apply, draw)
