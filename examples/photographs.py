"""Write a folder of photographs for the tutorial: `train`, `validation` and `test`, and in each one folder for each class.

    python examples/photographs.py photographs

Nothing is downloaded. The pictures are pieces of eight colour photographs that the package scikit-image holds, and the class of a
piece is the photograph that it is from. Every photograph is divided into tiles. The pieces of a tile all go to the same split, so
that no pixel of a test image is in a training image. A piece is a square of 48 to 96 px; pieces without contrast, such as
those of a black sky, are left out.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image
from study.photographs import PHOTOGRAPHS, TILE, photograph

SPLITS = {"train": 150, "validation": 20, "test": 20}  # images of each class
CLASSES = {
    "hubble_deep_field": "galaxies",
    "immunohistochemistry": "tissue",
}  # those with another name than their photograph
SIDES = (48, 64, 80, 96)  # pixels
LEAST_CONTRAST = 12.0  # standard deviation of the pixels, of 255
QUALITY = 92


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a new folder")
    for split, count in SPLITS.items():
        parser.add_argument(f"--{split}", type=int, default=count, help=f"images of each class (default: {count})")
    options = vars(parser.parse_args())
    folder = options.pop("folder")
    if folder.exists():
        parser.error(f"{folder} is there already: name a new folder")
    write(folder, options)
    for split, count in options.items():
        print(f"{folder / split}: {count} images in each of {len(PHOTOGRAPHS)} folders")


def write(folder: Path, counts: dict[str, int]) -> None:
    """Write so many images of each class to a folder for each split."""
    generator = torch.Generator().manual_seed(0)
    for split, count in counts.items():
        for name in PHOTOGRAPHS:
            place = folder / split / CLASSES.get(name, name)
            place.mkdir(parents=True)
            for number in range(count):
                piece(name, split, generator).save(place / f"{number:03}.jpg", quality=QUALITY)


def piece(name: str, split: str, generator: torch.Generator) -> Image.Image:
    """A random square out of the tiles of a photograph that belong to this split."""
    pixels = photograph(name)
    height, width, _ = pixels.shape
    rows, columns = height // TILE, width // TILE
    tiles = [(row, column) for row in range(rows) for column in range(columns) if split_of(row, column) == split]

    def drawn(end: int) -> int:
        return int(torch.randint(end, (), generator=generator))

    while True:
        row, column = tiles[drawn(len(tiles))]
        side = SIDES[drawn(len(SIDES))]
        (top, bottom), (left, right) = edges(row, rows, height), edges(column, columns, width)
        top, left = top + drawn(bottom - top - side + 1), left + drawn(right - left - side + 1)
        square = pixels[top : top + side, left : left + side]
        if square.std() >= LEAST_CONTRAST:
            return Image.fromarray(square)


def split_of(row: int, column: int) -> str:
    """The split that a tile belongs to: of six tiles, one is for validation, one for testing, and four are for training."""
    return {0: "test", 3: "validation"}.get((row + 2 * column) % 6, "train")


def edges(place: int, places: int, length: int) -> tuple[int, int]:
    """The first pixel of a tile, and the first one after it."""
    return length * place // places, length * (place + 1) // places


if __name__ == "__main__":
    main()
