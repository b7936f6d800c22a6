"""Image files: the endings that are read, images of 8 or 16 bits, and what a folder holds beside them."""

import os
import struct
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin
from torch import Tensor

ENDINGS = tuple(
    ending
    for ending in (
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".avif", ".jp2"),
        *(".ppm", ".pgm", ".pbm", ".pnm"),
    )
    if Image.registered_extensions().get(ending) in Image.OPEN
)
# Entries of a webdataset's samples: those that timm looks for come first.
SHARD_KEYS = ";".join(dict.fromkeys(["jpg", "png", "webp", *(ending[1:] for ending in ENDINGS)]))
# Files that often lie beside images, and that nobody takes for one.
BESIDE = {"", ".txt", ".json", ".jsonl", ".csv", ".xml", ".md", ".yaml", ".yml", ".db", ".ini", ".html", ".log"}
DEEP = ("I;16", "I;16L", "I;16B", "I;16N")  # Pillow's modes of 16-bit grey images
DEEPEST = 65535
SAMPLE = 32  # files that are looked at
# All that Pillow raises; the last for images of more pixels than it takes (179 million).
DAMAGED = (OSError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
DROPPED = {
    "turned": "are turned by their EXIF orientation where people see them, and are read as they are stored, as timm does",
    "transparent": "are transparent in parts, and are read without that, in the colours beneath",
    "several": "hold several pictures, of which the first is read",
}


class Survey(NamedTuple):
    """The files in and below a folder; hidden ones do not count.

    Attributes:
        images: by the folder that they lie in, relative to the one that was surveyed.
        others: files that cannot be read as images, by their endings.
    """

    images: Counter[Path]
    others: Counter[str]


def survey(root: Path, endings: Sequence[str] = ENDINGS) -> Survey:
    """Count the files in and below a folder."""
    images: Counter[Path] = Counter()
    others: Counter[str] = Counter()
    for place, folders, names in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        kinds = Counter(os.path.splitext(name)[1].lower() for name in names if not name.startswith("."))
        for ending, count in kinds.items():
            if ending in endings:
                images[Path(place).relative_to(root)] += count
            elif ending not in BESIDE:
                others[ending] += count
    return Survey(images, others)


def unread(others: Counter[str]) -> str | None:
    """Describe files that are not images that can be read; None if there are none.

    Example:
        >>> unread(Counter({".heic": 3}))
        '3 files with the ending .heic are no images that can be read'
    """
    if not others:
        return None
    count, endings = others.total(), f"ending{'s' * (len(others) > 1)} {', '.join(sorted(others))}"
    return (
        f"{count} files with the {endings} are no images that can be read"
        if count > 1
        else (f"1 file with the {endings} is no image that can be read")
    )


def converted(image: Image.Image, mode: str) -> Image.Image:
    """Convert an image to "L" or "RGB", or one of 16 bits to "F" with values on [0,1].

    Raises:
        ValueError: it holds numbers of which the largest is not known.
    """
    if image.mode in DEEP or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return Image.fromarray(_levels(image))
    if image.mode in ("I", "F"):
        name = getattr(image, "filename", "") or getattr(getattr(image, "fp", None), "name", "") or "an image"
        raise ValueError(
            f"{str(name)!r} holds 32-bit numbers, and does not say which of them is white: save the images with 8 or 16 bits"
        )
    return image.convert(mode)


def _levels(image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Scale the pixels of a 16-bit grey image to [0,1]; a TIFF file may have 12 bits, or call 0 white."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]
    levels = np.asarray(image).astype(np.float32) / (DEEPEST if bits == 16 else 2**bits - 1)
    white_is_0 = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    return 1 - levels if white_is_0 else levels


def opened(path: str, mode: str) -> Image.Image:
    """Read an image for torchvision's ImageFolder."""
    with Image.open(path) as image:
        return converted(image, mode)


class Converted:
    """A transform of Pillow's images, as `converted` does it."""

    def __init__(self, mode: str) -> None:
        self.mode = mode

    def __call__(self, image: Image.Image) -> Image.Image:
        return converted(image, self.mode)


class Expanded:
    """A transform of images (1,H,W) or (3,H,W) that repeats a grey channel where colour is needed."""

    def __init__(self, mode: str) -> None:
        self.mode = mode

    def __call__(self, pixels: Tensor) -> Tensor:
        return pixels.expand(3, -1, -1) if self.mode == "RGB" and len(pixels) == 1 else pixels


def oddities(paths: Sequence[str]) -> list[str]:
    """Look at some of these files; describe what is dropped when they are read."""
    marked = [(path, _marks(path)) for path in paths[:: max(1, len(paths) // SAMPLE)]]
    said = []
    for mark, what in DROPPED.items():
        first = next((path for path, marks in marked if mark in marks), None)
        if first is not None:
            said.append(f"images such as {first!r} {what}")
    return said


def _marks(path: str) -> set[str]:
    """Return what is dropped of an image; nothing for a damaged one, which is reported when it is read."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
            transparent = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
            several = (
                image.format != "MPO" and getattr(image, "n_frames", 1) > 1
            )  # an MPO is a JPEG file with a preview
    except DAMAGED:
        return set()
    marks = {"turned": turned, "transparent": transparent, "several": several}
    return {mark for mark, found in marks.items() if found}
