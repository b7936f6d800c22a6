"""Spatter: water or mud on the lens."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from robusttune.corruptions import Corruption
from robusttune.corruptions._filters import smoothed, tinted

__all__ = ["spatter"]

Level = tuple[float, float, float, float, float, int]
LEVELS = {  # mean, spread and sigma of the liquid, threshold of its drops, strength or sigma of the drops, 1 for mud
    32: (
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1.0, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ),
    64: (
        (0.62, 0.1, 0.7, 0.7, 0.6, 0),
        (0.65, 0.1, 0.8, 0.7, 0.6, 0),
        (0.65, 0.3, 1.0, 0.69, 0.6, 0),
        (0.65, 0.1, 0.7, 0.68, 0.6, 1),
        (0.65, 0.1, 0.5, 0.67, 0.6, 1),
    ),
    224: (
        (0.65, 0.3, 4.0, 0.69, 0.6, 0),
        (0.65, 0.3, 3.0, 0.68, 0.6, 0),
        (0.65, 0.3, 2.0, 0.68, 0.5, 0),
        (0.65, 0.3, 1.0, 0.65, 1.5, 1),
        (0.67, 0.4, 1.0, 0.65, 1.5, 1),
    ),
}
WATER, MUD = (175 / 255, 238 / 255, 238 / 255), (63 / 255, 42 / 255, 20 / 255)
SOLID = 0.8
# Thresholds of Canny's edges; the largest distance from an edge; OpenCV's lengths of steps, in 1/65536 of a pixel.
WEAK, STRONG, FARTHEST = 50, 150, 20
UNIT, STRAIGHT, DIAGONAL, KNIGHT = 65536, 65536, 91750, 143976
TANGENT = 13573 / 32768  # tangent of 22.5 degrees, as in OpenCV


def draw(image: Tensor, level: Level, generator: torch.Generator) -> tuple[Tensor]:
    """Draw a standard normal number for each pixel (H,W)."""
    return (torch.empty(image.shape[-2:], device=image.device).normal_(generator=generator),)


def apply(images: Tensor, level: Level, field: Tensor) -> Tensor:
    """Cover images (N,C,H,W) with water, bright at the rims of its drops, or with mud."""
    mean, spread, sigma, threshold, strength, mud = level
    channels = images.shape[1]
    liquid = smoothed((mean + spread * field)[:, None], sigma)
    if mud:
        drops = smoothed((liquid > threshold).float(), strength)
        drops = drops.masked_fill(drops < SOLID, 0.0)
        return images * (1 - drops) + tinted(drops, MUD, channels)
    liquid = torch.floor(liquid.masked_fill(liquid < threshold, 0.0) * 255) % 256
    water = liquid * _rims(liquid)
    water = water / water.amax((2, 3), keepdim=True).clamp_min(1)
    return images + tinted(water * strength, WATER, channels)


def _rims(liquid: Tensor) -> Tensor:
    """Compute the brightness of water from the distance to its rims: (N,1,H,W) from 0 to 255."""
    distance = _distance(_edges(liquid))
    mean = F.avg_pool2d(_mirrored(distance), 3, 1, divisor_override=1)
    levels = _equalised(torch.floor(mean / (9 * UNIT) + 1e-6))
    embossed = F.conv2d(_mirrored(levels), _emboss(levels.device)).clamp(0, 255)
    return torch.floor(F.avg_pool2d(_mirrored(embossed), 3, 1) + 0.5)


@lru_cache(maxsize=8)
def _emboss(device: torch.device) -> Tensor:
    return torch.tensor([[[[-2.0, -1.0, 0.0], [-1.0, 1.0, 1.0], [0.0, 1.0, 2.0]]]], device=device)


def _edges(levels: Tensor) -> Tensor:
    """Find Canny's edges of levels (N,1,H,W), with the sum of both absolute slopes as gradient size, as booleans."""
    padded = F.pad(levels, (1, 1, 1, 1), mode="replicate")
    rows = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    down = rows[..., 2:, :] - rows[..., :-2, :]
    columns = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    right = columns[..., 2:] - columns[..., :-2]
    size = right.abs() + down.abs()
    around = F.pad(size, (1, 1, 1, 1))
    height, width = levels.shape[-2:]

    def at(row: int, column: int) -> Tensor:
        return around[..., 1 + row : 1 + row + height, 1 + column : 1 + column + width]

    flat, steep = down.abs() < right.abs() * TANGENT, down.abs() > right.abs() * (TANGENT + 2)
    falling = (size > at(-1, -1)) & (size > at(1, 1))
    rising = (size > at(-1, 1)) & (size > at(1, -1))
    crest = torch.where((right < 0) ^ (down < 0), rising, falling)
    crest = torch.where(steep, (size > at(-1, 0)) & (size >= at(1, 0)), crest)
    crest = torch.where(flat, (size > at(0, -1)) & (size >= at(0, 1)), crest)
    weak = (crest & (size > WEAK)).float()
    return _reached(weak, weak * (size > STRONG))


def _reached(weak: Tensor, strong: Tensor) -> Tensor:
    """Return the pixels of `weak` (N,1,H,W) that are connected to one of `strong`, as booleans."""
    edges = strong
    for _ in range(max(weak.shape[-2:])):
        before, edges = edges, F.max_pool2d(edges, 3, 1, 1) * weak
        # Comparing on an accelerator would wait for it.
        if edges.device.type == "cpu" and torch.equal(before, edges):
            break
    return edges > 0


def _distance(edges: Tensor) -> Tensor:
    """Compute the distance (N,1,H,W) to the nearest edge, up to 20 pixels, along moves of a chess king and knight.

    A shortest path has at most two kinds of moves, so two jumps of each size below cover every path.
    """
    height, width = edges.shape[-2:]
    steps = [(0, 1, STRAIGHT), (1, 0, STRAIGHT), (1, 1, DIAGONAL), (1, -1, DIAGONAL)]
    steps += [(1, 2, KNIGHT), (1, -2, KNIGHT), (2, 1, KNIGHT), (2, -1, KNIGHT)]
    steps += [(-row, -column, length) for row, column, length in steps]
    distance = torch.where(edges, 0.0, float(FARTHEST * UNIT))
    for size in (8, 8, 4, 4, 2, 2, 1, 1):
        edge = 2 * size
        around = F.pad(distance, (edge, edge, edge, edge), value=float(FARTHEST * UNIT))
        for row, column, length in steps:
            top, left = edge + size * row, edge + size * column
            near = around[..., top : top + height, left : left + width]
            distance = torch.minimum(distance, near + size * length)
    return distance


def _equalised(levels: Tensor) -> Tensor:
    """Equalise the histogram of whole levels (N,1,H,W) from 0 to 20, to the range from 0 to 255."""
    counts = torch.stack([(levels == level).sum((1, 2, 3)) for level in range(FARTHEST + 1)], dim=1).float()
    seen = counts.cumsum(1)
    lowest = counts.gather(1, (seen > 0).float().argmax(1, keepdim=True))
    total = seen[:, -1:]
    spread = torch.round((seen - lowest).clamp_min(0) * 255 / (total - lowest).clamp_min(1))
    same = torch.arange(FARTHEST + 1, device=levels.device).expand_as(spread).float()
    spread = torch.where(lowest == total, same, spread)
    return spread.gather(1, levels.flatten(1).long()).view_as(levels)


def _mirrored(planes: Tensor) -> Tensor:
    return F.pad(planes, (1, 1, 1, 1), mode="reflect")


spatter = Corruption("spatter", "weather", LEVELS, apply, draw, extra=True)
