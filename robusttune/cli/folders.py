"""Folders of images by class: the names of the classes, and the labels that follow from them."""

import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from robusttune.cli.image_files import BESIDE, DAMAGED, ENDINGS, converted
from robusttune.data.class_names import shown

RETRIES = 10  # images in a row that may be damaged

logger = logging.getLogger("robusttune")


class FolderReader(Protocol):
    """A reader of image files, as timm has it: of a folder, it holds the path and the label of each."""

    root: str
    samples: list[tuple[str, int]]

    def __getitem__(self, index: int) -> tuple[BinaryIO, int | None]: ...
    def __len__(self) -> int: ...


class Folder(NamedTuple):
    """The images of a folder by class.

    Attributes:
        paths: the paths of the images that lie in a class folder.
        classes: the name of the class of each.
        left_out: images beside the class folders, or in hidden ones, and hidden files.
    """

    paths: list[str]
    classes: list[str]
    left_out: int


class ReadImages(Dataset[tuple[Tensor, int]]):
    """The images that a reader of timm opens, in all bit depths that their files have.

    Args:
        reader: opens the files.
        mode: "L" or "RGB".

    Attributes:
        transform: images of Pillow -> tensors (C,H,W).
        target_transform: the reader's labels -> labels; None to keep them.
        classes: their names by label, where they are known.
        unread: (N,), True for images that could not be read.
    """

    def __init__(self, reader: FolderReader, mode: str) -> None:
        self.reader = reader
        self.unread = torch.zeros(len(reader), dtype=torch.bool)
        self.mode = mode
        self.transform: Callable[[Image.Image], Tensor] | None = None
        self.target_transform: Callable[[int], int] | None = None
        self.classes: list[str] | None = None

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self._opened(index)
        label = -1 if label is None else label if self.target_transform is None else self.target_transform(label)
        assert self.transform is not None
        return self.transform(image), label

    def _opened(self, index: int) -> tuple[Image.Image, int | None]:
        """Read an image, or the next one that is not damaged."""
        for _ in range(RETRIES):
            try:
                file, label, *_ = self.reader[index]
                with file:
                    return converted(Image.open(file), self.mode), label
            except DAMAGED as error:
                if not self.unread[index]:
                    self.unread[index] = True
                    reason = "it is no image" if isinstance(error, UnidentifiedImageError) else error
                    logger.warning("%s cannot be read (%s): the next image takes its place", self.name(index), reason)
                index = (index + 1) % len(self)
        raise ValueError(
            f"{RETRIES} images in a row cannot be read, up to {self.name(index - 1)}: they may be damaged; restore or remove them"
        )

    def name(self, index: int) -> str:
        """Name an image by its file, or by its number where the reader does not name files."""
        samples = getattr(self.reader, "samples", None)
        return f"the image {index}" if samples is None else repr(str(samples[index][0]))


def read_folder(reader: FolderReader) -> Folder:
    """Sort a reader's images by the folders they lie in.

    Raises:
        ValueError: no image lies in a class folder, or one lies in a folder below it, so that either may be its class.
    """
    root = Path(reader.root)
    places = [(path, Path(path).relative_to(root).parts[:-1]) for path, _ in reader.samples]
    inside = [
        (path, parts)
        for path, parts in places
        if parts and not any(part.startswith(".") for part in (*parts, os.path.basename(path)))
    ]
    if not inside:
        raise ValueError(
            f"{str(root)!r} has images, but no folder of images for each class, which its labels come from: put the images of each "
            "class into a folder with its name"
        )
    deep = next((parts for _, parts in inside if len(parts) > 1), None)
    if deep is not None:
        raise ValueError(
            f"{str(root)!r} has images in {'/'.join(deep)!r}, so their class may be {deep[0]!r} (the first folder, as "
            f"torchvision's ImageFolder reads it) or {deep[-1]!r} (the last one, as timm does): put the images of each class "
            "into one folder, without folders inside"
        )
    return Folder([path for path, _ in inside], [parts[0] for _, parts in inside], len(places) - len(inside))


def class_folders(root: Path, endings: str | None = None) -> tuple[list[str], list[str]]:
    """List the names of the folders that hold images, and of those that hold none; hidden ones do not count.

    A link that leads nowhere is a folder that holds none.

    Args:
        root: the folder that holds them.
        endings: the endings of image files, with semicolons between; None for all that can be read.
    """
    kinds = tuple(endings.split(";") if endings else ENDINGS)
    inside = [each for each in root.iterdir() if _may_be_class(each, kinds) and not each.name.startswith(".")]
    full = {each.name for each in inside if _holds_images(each, kinds)}
    return sorted(full), sorted({each.name for each in inside} - full)


def _may_be_class(place: Path, kinds: tuple[str, ...]) -> bool:
    """Return True for a folder, and for a link to nowhere, whose folder may be on a disk that is not there now."""
    lost = place.is_symlink() and not place.exists()
    return place.is_dir() or (lost and place.suffix.lower() not in (*kinds, *BESIDE - {""}))


def _holds_images(folder: Path, endings: tuple[str, ...]) -> bool:
    for _, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if any(name.lower().endswith(endings) and not name.startswith(".") for name in names):
            return True
    return False


def composed(names: Iterable[str]) -> list[str]:
    """Write names in one form: systems write "é" as one sign, or as "e" and an accent.

    Example:
        >>> composed(["e\\N{COMBINING ACUTE ACCENT}"]) == ["\\N{LATIN SMALL LETTER E WITH ACUTE}"]
        True
    """
    return [unicodedata.normalize("NFC", name) for name in names]


def by_name(own: Sequence[str], names: Sequence[str], where: str) -> tuple[Mapping[int, int], list[str]]:
    """Map labels to those of other classes by their names; also list the classes that are missing.

    Args:
        own: names of classes, by label.
        names: the names to map to, by label.
        where: names the images in the error.

    Raises:
        ValueError: a class is not among the names, or a name stands for two classes.
    """
    own, names = composed(own), composed(names)
    if own == names:
        return {label: label for label in range(len(own))}, []  # a name may stand twice, as "crane" does in ImageNet
    counts = [*Counter(own).items(), *Counter(names).items()]
    twice = sorted({name for name, count in counts if count > 1 and name in own})
    if twice:
        raise ValueError(
            f"{where} has other classes than the model, and two of them have the same name: {shown(twice)}; rename one of the two"
        )
    rows = {name: row for row, name in enumerate(names)}
    added = [name for name in own if name not in rows]
    if added:
        raise ValueError(
            f"{where} has images of the classes {shown(added)}, which are not among the model's classes: {shown(names)}; rename the "
            "folders as these are called, or remove them"
        )
    return {label: rows[name] for label, name in enumerate(own)}, [name for name in names if name not in set(own)]


class Relabelled:
    """A function of labels that maps them by a table to those of `classes`."""

    def __init__(self, table: Mapping[int, int], classes: Sequence[str]) -> None:
        self.table, self.classes = dict(table), list(classes)

    def __call__(self, label: int) -> int:
        return self.table[int(label)]
