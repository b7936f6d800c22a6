"""Patch rotation: predict which square of the image was turned, and by how many quarter turns."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor

from robusttune.tasks import View, pixel_numbers, reindex

__all__ = ["patch_rotation"]

TURNS = 4


@dataclass(frozen=True)
class patch_rotation:
    """Predict which square of a grid was turned within each image, and by how many quarter turns.

    The turned image replaces the image in the classification forward, whose features the head reads, so the task needs no
    forward of its own. Each cell of the grid has a square in its middle, as large as possible, so that quarter turns exist
    for images that are not square too; for ViTs, squares consist of whole patches if a cell holds any. A quarter of the
    images are not turned. The chosen square of these cannot be seen, so a head with the 16 answers of a 2x2 grid is right
    on at most 13 in 16.

    Args:
        grid: cells per side; a square of a finer grid changes less of the image.

    Raises:
        ValueError: the grid is under 1, or an image is smaller than the grid.

    Source: LoRot-E of Moon et al., arXiv:2207.10023. Their variant LoRot-I draws squares of 2 px and more at any
    position. These do not fit the patches of a ViT, and adversarial noise may hide their turn.

    Example:
        >>> view = patch_rotation().draw(torch.rand(3, 1, 9, 8), torch.Generator(), patch_size=None)
        >>> view.classes, view.targets.shape
        (16, torch.Size([3]))
    """

    grid: int = 2
    name = "patch_rotation"
    shares_forward = True

    def __post_init__(self) -> None:
        if not isinstance(self.grid, int) or self.grid < 1:
            raise ValueError(f"patch_rotation's grid is {self.grid!r}, but a whole number of cells per side is needed")

    @property
    def classes(self) -> int:
        """The number of turns of all squares."""
        return TURNS * self.grid**2

    def draw(self, images: Tensor, generator: torch.Generator, *, patch_size: int | None) -> View:
        """Draw one random square and turn for each image (N,C,H,W); a target is 4 times the square plus the turn."""
        height, width = images.shape[-2:]
        turned = _turned(height, width, self.grid, patch_size or 1)
        choice = torch.randint(len(turned), (len(images),), generator=generator)
        source = turned[choice].to(images.device, non_blocking=True)
        return View(lambda pixels: reindex(pixels, source), choice.to(images.device, non_blocking=True), len(turned))


@lru_cache(maxsize=8)
def _turned(height: int, width: int, grid: int, unit: int) -> Tensor:
    """Return the source pixel of each pixel, for each turn of each square: (4·grid²,H·W)."""
    if min(height, width) < grid:
        raise ValueError(f"images of {height}x{width} px cannot be cut into {grid}x{grid} cells: choose a smaller grid")
    if min(height, width) < grid * unit:
        unit = 1
    numbers = pixel_numbers((height, width))
    side = min(height, width) // (grid * unit) * unit
    sources = []
    corners = product(_starts(height, side, grid, unit), _starts(width, side, grid, unit))
    for (top, left), turns in product(corners, range(TURNS)):
        square = (slice(top, top + side), slice(left, left + side))
        source = numbers.clone()
        source[square] = torch.rot90(numbers[square], turns, (0, 1))
        sources.append(source.flatten())
    return torch.stack(sources)


def _starts(length: int, side: int, grid: int, unit: int) -> list[int]:
    """Return the starts of the squares, which lie in the middle of cells in the middle of the length, in whole units."""
    cell = length // (grid * unit) * unit
    first = (length - grid * cell) // (2 * unit) * unit + (cell - side) // (2 * unit) * unit
    return [first + number * cell for number in range(grid)]
