"""Glass blur, as through frosted glass: pixels take the values of near pixels."""

import torch
from torch import Tensor

from robusttune.corruptions import Corruption
from robusttune.corruptions._filters import floored, smoothed

__all__ = ["glass_blur"]

LEVELS = {  # sigma of the blurs before and after, largest move of a pixel, number of passes
    32: ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    64: ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
    224: ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
}
# A chain of pixels that take values from one another has at least n links with a probability of about 2^-n.
DOUBLINGS = 6


def draw(image: Tensor, level: tuple[float, int, int], generator: torch.Generator) -> tuple[Tensor]:
    """Draw the offset of each pixel's source in each pass: (passes,H,W,2) rows down and columns right."""
    _, reach, passes = level
    shape = (passes, *image.shape[-2:], 2)
    return (torch.randint(-reach, reach, shape, generator=generator, device=image.device),)


def apply(images: Tensor, level: tuple[float, int, int], offsets: Tensor) -> Tensor:
    """Blur images (N,C,H,W), move their pixels, and blur them again."""
    sigma, reach, passes = level
    flat = floored(smoothed(images, sigma)).flatten(2)
    for number in range(passes):
        sources = _sources(offsets[:, number], reach)
        flat = flat.gather(2, sources[:, None].expand_as(flat))
    return smoothed(flat.view_as(images), sigma)


def _sources(offsets: Tensor, reach: int) -> Tensor:
    """Return, for each flattened pixel, the pixel whose value it has in the end: (N,H·W).

    The published program goes from the last pixel to the first and writes into the image that it reads from (the code
    looks like an exchange of two pixels, but changes only one). A pixel whose source was changed before therefore takes
    the value that this source took. Such chains are followed here in doubling steps.
    """
    count, height, width, _ = offsets.shape
    rows, columns = (torch.arange(side, device=offsets.device) for side in (height, width))
    inside = ((rows > reach) & (rows <= height - reach))[:, None] & ((columns > reach) & (columns <= width - reach))
    itself = (rows[:, None] * width + columns).expand(count, -1, -1)
    moved = itself + offsets[..., 0] * width + offsets[..., 1]
    source = torch.where(inside, moved, itself).flatten(1)
    itself = itself.flatten(1)
    changed = inside.flatten().expand(count, -1).gather(1, source)
    follow = torch.where(changed & (source > itself), source, itself)
    for _ in range(DOUBLINGS):
        follow = follow.gather(1, follow)
    return source.gather(1, follow)


glass_blur = Corruption("glass_blur", "blur", LEVELS, apply, draw)
