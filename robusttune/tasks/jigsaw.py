"""Jigsaw puzzle: predict the order of the image's tiles."""

import math
import random
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import torch
from torch import Tensor

from robusttune.tasks import View, pixel_numbers, reindex

__all__ = ["jigsaw"]

ORDERS = 31
CANDIDATES = 2000
SMALL_SIDE = 48


@dataclass(frozen=True)
class jigsaw:
    """Predict in which of a fixed set of orders the tiles of each image were arranged, at the size of the image.

    The tiles are the cells of a grid over the centre of the image; pixels outside of the grid are not moved. A 2x2 grid has
    all its 24 orders, a larger one the identity and 30 orders with a large distance from each other.

    Args:
        grid: tiles per side. None for 2 if a side is under 48 px, else 3; for ViTs the largest of 4, 3, 2 whose tiles
            consist of whole patches, if there is one.

    Raises:
        ValueError: the grid is under 2, or an image is smaller than the grid.

    Source: Noroozi and Favaro, arXiv:1603.09246; tiles in one image: Carlucci et al., arXiv:1903.06864.

    Example:
        >>> view = jigsaw().draw(torch.rand(3, 1, 9, 8), torch.Generator(), patch_size=None)
        >>> view.classes, view.targets.shape
        (24, torch.Size([3]))
    """

    grid: int | None = None
    name = "jigsaw"
    classes = ORDERS
    shares_forward = False

    def __post_init__(self) -> None:
        if self.grid is not None and self.grid < 2:
            raise ValueError(f"jigsaw's grid is {self.grid}, but at least 2 tiles per side are needed to shuffle them")

    def draw(self, images: Tensor, generator: torch.Generator, *, patch_size: int | None) -> View:
        """Draw one random order for each image (N,C,H,W)."""
        height, width = images.shape[-2:]
        grid = self.grid or _grid_for(height, width, patch_size)
        shuffles = _shuffles(height, width, grid)
        choice = torch.randint(len(shuffles), (len(images),), generator=generator)
        source = shuffles[choice].to(images.device, non_blocking=True)
        targets = choice.to(images.device, non_blocking=True)
        return View(lambda pixels: reindex(pixels, source), targets, len(shuffles), f"orders of {grid}x{grid} tiles")


def orders(grid: int) -> list[tuple[int, ...]]:
    """Return the orders in use, the identity first: each next order is the farthest from all orders before it."""
    tiles = grid * grid
    if math.factorial(tiles) <= ORDERS:
        return list(permutations(range(tiles)))
    generator = random.Random(0)
    pool = {tuple(generator.sample(range(tiles), tiles)) for _ in range(CANDIDATES)}
    chosen = [tuple(range(tiles))]
    nearest = dict.fromkeys(sorted(pool - set(chosen)), tiles)
    while len(chosen) < ORDERS:
        nearest = {order: min(d, _distance(order, chosen[-1])) for order, d in nearest.items()}
        chosen.append(max(nearest, key=lambda order: nearest[order]))
    return chosen


def _distance(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    return sum(a != b for a, b in zip(first, second, strict=True))


def _grid_for(height: int, width: int, patch_size: int | None) -> int:
    if patch_size:
        for grid in (4, 3, 2):
            if height % (grid * patch_size) == 0 and width % (grid * patch_size) == 0:
                return grid
    return 2 if min(height, width) < SMALL_SIDE else 3


@lru_cache(maxsize=8)
def _shuffles(height: int, width: int, grid: int) -> Tensor:
    """Return the source pixel of each pixel, for each order: (orders,H·W)."""
    tall, wide = height // grid, width // grid
    if min(tall, wide) < 1:
        raise ValueError(f"images of {height}x{width} px cannot be cut into {grid}x{grid} tiles: choose a smaller grid")
    numbers = pixel_numbers((height, width))
    top, left = (height - grid * tall) // 2, (width - grid * wide) // 2
    region = (slice(top, top + grid * tall), slice(left, left + grid * wide))
    tiles = numbers[region].reshape(grid, tall, grid, wide).transpose(1, 2).reshape(grid * grid, tall, wide)
    sources = []
    for order in orders(grid):
        source = numbers.clone()
        shuffled = tiles[list(order)].reshape(grid, grid, tall, wide)
        source[region] = shuffled.transpose(1, 2).reshape(grid * tall, grid * wide)
        sources.append(source.flatten())
    return torch.stack(sources)
