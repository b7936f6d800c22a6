"""Which part of the image is turned, and how far?"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from robusttune.tasks import View, pixel_numbers, reindex

__all__ = ["patch_rotation"]

TURNS = 4


@dataclass(frozen=True)
class patch_rotation:
    """Predict which square of a grid was turned within each image, and by how many quarter turns.

    The turned image takes the image's place in the classification, whose features the head reads, so the task costs no
    forward of its own. A square lies in the middle of each cell of the grid, as large as the cell lets it, so that there
    are quarter turns in images that are not square too; for ViTs it is made of whole patches (where the cell holds any).
    A quarter of the images are left as they are; which square was not turned cannot be seen, so that of the 2x2 grid's 16
    answers a head can give 13 in 16 right at best.

    Args:
        grid: cells a side; one square of a finer grid changes less of the image.

    Raises:
        ValueError: a grid under 1, or an image smaller than its grid.

    Source: LoRot-E of Moon et al., arXiv:2207.10023. Their other variant, LoRot-I, draws squares of 2 px and more at any
    place, which fit no patches of a ViT and whose turn an adversary's noise may hide.

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
            raise ValueError(f"patch_rotation's grid is {self.grid!r}, but a whole number of cells a side is needed")

    @property
    def classes(self) -> int:
        """One for each turn of each square."""
        return TURNS * self.grid**2

    def draw(self, images: Tensor, generator: torch.Generator, *, patch_size: int | None) -> View:
        """One random square and turn for each image (N,C,H,W); a target is 4 times the square plus the turn."""
        height, width = images.shape[-2:]
        turned = _turned(height, width, self.grid, patch_size or 1)
        choice = torch.randint(len(turned), (len(images),), generator=generator)
        source = turned[choice].to(images.device, non_blocking=True)
        return View(lambda pixels: reindex(pixels, source), choice.to(images.device, non_blocking=True), len(turned))


@lru_cache(maxsize=8)
def _turned(height: int, width: int, grid: int, unit: int) -> Tensor:
    """The source pixel of each pixel, for each turn of each square: (4·grid²,H·W)."""
    if min(height, width) < grid:
        raise ValueError(f"images of {height}x{width} px cannot be cut into {grid}x{grid} cells: choose a smaller grid")
    if min(height, width) < grid * unit:
        unit = 1
    numbers = pixel_numbers((height, width))
    side = min(height, width) // (grid * unit) * unit
    sources = []
    for top in _starts(height, side, grid, unit):
        for left in _starts(width, side, grid, unit):
            square = (slice(top, top + side), slice(left, left + side))
            for turns in range(TURNS):
                source = numbers.clone()
                source[square] = torch.rot90(numbers[square], turns, (0, 1))
                sources.append(source.flatten())
    return torch.stack(sources)


def _starts(length: int, side: int, grid: int, unit: int) -> list[int]:
    """Where the squares begin: in the middle of cells that lie in the middle of the length, in whole units."""
    cell = length // (grid * unit) * unit
    first = (length - grid * cell) // (2 * unit) * unit + (cell - side) // (2 * unit) * unit
    return [first + number * cell for number in range(grid)]
