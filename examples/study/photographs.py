"""A colour set without a download: crops of the eight colour photographs in scikit-image's wheel, a class for each.

Every photograph is divided into tiles of 100 px or a little more: 12 of the cat, 196 of the retina. Where row + column of a tile
is a multiple of three, crops for testing are taken, elsewhere crops for training. A crop lies within a tile, so that no pixel
is in crops of both. Crops are squares of 24, 32, 48, 64 or 96 px, resized to the side that is asked for, and every class has
the same number of them. At 32 px, with 4,000 crops for training, timm's `test_resnet` gets 94% of 1,000 for testing right after
ordinary training.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import TensorDataset

PHOTOGRAPHS = (
    "astronaut",
    "cat",
    "coffee",
    "hubble_deep_field",
    "immunohistochemistry",
    "motorcycle",
    "retina",
    "rocket",
)
TILE = 100
SIZES = (24, 32, 48, 64, 96)


class Region(NamedTuple):
    """A square of a photograph, in pixels."""

    photograph: str
    top: int
    left: int
    size: int


def photographs(side: int, *, train: int, test: int) -> tuple[TensorDataset, TensorDataset]:
    """So many crops for training and for testing: (images (N,3,side,side) in [0,1], numbers (N,) of their photographs)."""
    return _crops(regions(train, testing=False), side), _crops(regions(test, testing=True), side)


def regions(count: int, *, testing: bool) -> list[Region]:
    """Regions in the tiles for testing, or in those for training, in a random order that is always the same."""
    generator = torch.Generator().manual_seed(int(testing))
    found = [_region(PHOTOGRAPHS[number % len(PHOTOGRAPHS)], testing, generator) for number in range(count)]
    return [found[place] for place in torch.randperm(count, generator=generator)]


def crop(region: Region, side: int) -> Tensor:
    """The image (3,side,side) in [0,1] of a region."""
    _, top, left, size = region
    pixels = torch.from_numpy(photograph(region.photograph)[top : top + size, left : left + size].copy())
    image = pixels.permute(2, 0, 1)[None] / 255
    return F.interpolate(image, size=(side, side), mode="bilinear", align_corners=False, antialias=True)[0]


@lru_cache
def photograph(name: str) -> np.ndarray:
    """A photograph (height, width, 3) in bytes."""
    try:
        from skimage import data
    except ImportError:
        raise SystemExit("the photographs are scikit-image's: pip install scikit-image") from None
    return data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(data, name)()


def _region(name: str, testing: bool, generator: torch.Generator) -> Region:
    def drawn(end: int) -> int:
        return int(torch.randint(end, (), generator=generator))

    height, width, _ = photograph(name).shape
    rows, columns = height // TILE, width // TILE
    tiles = [(row, column) for row in range(rows) for column in range(columns)]
    tiles = [tile for tile in tiles if (sum(tile) % 3 == 0) == testing]
    row, column = tiles[drawn(len(tiles))]
    size = SIZES[drawn(len(SIZES))]
    top, bottom = height * row // rows, height * (row + 1) // rows
    left, right = width * column // columns, width * (column + 1) // columns
    return Region(name, top + drawn(bottom - top - size + 1), left + drawn(right - left - size + 1), size)


def _crops(regions: list[Region], side: int) -> TensorDataset:
    labels = [PHOTOGRAPHS.index(region.photograph) for region in regions]
    return TensorDataset(torch.stack([crop(region, side) for region in regions]), torch.tensor(labels))
