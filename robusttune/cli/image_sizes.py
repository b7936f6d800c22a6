"""The size and the colour of the images in a folder, read from their files where the user has not said them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median_low

from PIL import Image, ImageChops

from robusttune.cli.errors import note
from robusttune.cli.image_files import DAMAGED
from robusttune.cli.look import endings_of, images_under, is_folder, split_folder
from robusttune.cli.options import Sources

LOOKED_AT = 48  # files
LARGEST = 224  # the side that images are scaled down to
GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "F")


def with_size(sources: Sources, size: int | None, channels: int | None) -> Sources:
    """Return the sources with the user's size and channels, or with those of the image files, which a line says.

    Raises:
        ValueError: a data set that is no folder, without size or channels.
    """
    if size is not None and channels is not None:
        return replace(sources, size=size, channels=channels)
    if not is_folder(sources):
        raise ValueError(
            f"{sources.data!r} is no folder whose files could be looked at: pass --size and --channels, in which its images are read"
        )
    place = split_folder(Path(sources.data), sources.split)
    paths = images_under(place, endings_of(sources))
    found = [facts for path in _spread(paths) if (facts := _facts_of(path)) is not None]
    if not found:
        return sources  # the reader of the folder says what is wrong with it
    side = min(LARGEST, median_low(side for side, _ in found))
    colour = 1 if all(grey for _, grey in found) else 3
    fitted = replace(sources, size=side if size is None else size, channels=colour if channels is None else channels)
    tint, many = "grey" if colour == 1 else "colour", f"{len(found)} files"
    if len(found) < len(paths):
        many = f"{len(found)} files that were looked at, of {len(paths):,},"
    if size is not None:
        note(f"images are read in {tint}, as {many} are: --channels changes it")
    elif channels is not None:
        note(f"images are read at {side} px, as {many} are (at most {LARGEST} px): --size changes it")
    else:
        note(
            f"images are read at {side} px in {tint}, as {many} are (at most {LARGEST} px): --size and --channels change it"
        )
    return fitted


def _spread(paths: Sequence[str]) -> Sequence[str]:
    """Take some of the paths, at equal distances."""
    return paths[:: max(1, len(paths) // LOOKED_AT)][:LOOKED_AT]


def _facts_of(path: str) -> tuple[int, bool] | None:
    """Read the shorter side of an image, and whether it is grey; None for a file that is no image."""
    try:
        with Image.open(path) as image:
            return min(image.size), image.mode in GREY or _is_grey(image)
    except DAMAGED:
        return None


def _is_grey(image: Image.Image) -> bool:
    """Return True for an image in colour whose channels are the same."""
    red, green, blue = image.convert("RGB").split()
    return not (ImageChops.difference(red, green).getbbox() or ImageChops.difference(green, blue).getbbox())
