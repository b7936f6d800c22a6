"""Loaders of images by name, for the command line."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from timm.data.dataset import ImageDataset
from timm.data.dataset_factory import create_dataset
from torch.utils.data import DataLoader, IterableDataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from robusttune.cli import folders
from robusttune.cli.labels import BY_TEXT, Images, Labels, give_labels
from robusttune.cli.options import Sources
from robusttune.model.named import NamedModel, called
from robusttune.run.settings import COUNT, NOT_NEGATIVE_COUNT, check_number

SPLITS = {"train", "training", "val", "valid", "validation", "eval", "evaluation", "test", "testing"}
READERS = {"hfds": "datasets", "hfids": "datasets", "wds": "webdataset", "tfds": "tensorflow_datasets"}
CROPPED = 1.14  # the shorter side before the central crop, as a multiple of the side after it


class Reader(Protocol):
    """A reader of Hugging Face data sets, as timm has it."""

    dataset: Sequence[Mapping[str, object]]

    def __len__(self) -> int: ...


def named(sources: Sources) -> NamedModel:
    """Return the facts that a model is made from."""
    return NamedModel(**{each.name: getattr(sources, each.name) for each in fields(NamedModel)})


def loader_of(
    sources: Sources, *, labels: Labels | None = BY_TEXT, shuffle: bool = False, strict: bool = False
) -> Images:
    """Make a loader of images (N,C,H,W) on [0,1] and labels (N,), by timm's data set factory.

    Args:
        sources: the data, a split of it, and the size, channels and batches of its images. The data is a folder with a
            folder of images for each class, or with such folders for each split; or a name that timm knows, such as
            "torch/cifar10", "hfds/…" (on the Hub, or in a folder here) or "wds/…". Images are scaled and cropped to a
            square.
        labels: the classes that the labels stand for, found by name; None for images without labels.
        shuffle: draw the images in a random order.
        strict: refuse a folder without this split; otherwise a folder without any splits is used as a whole.

    Raises:
        ValueError: there are no images, no such split, or no such column; their classes are not those of the labels.
        ImportError: timm's reader needs a package that is not installed.
    """
    data, side = sources.data, sources.size
    check_number("size", side, COUNT)
    check_number("batch_size", sources.batch_size, COUNT)
    check_number("workers", sources.workers, NOT_NEGATIVE_COUNT)
    named = sources.data_dir is not None or not data or not Path(data).exists()
    if named:
        _check_reader(data)
    elif not Path(data).is_dir():
        raise ValueError(f"{data!r} is a file, but a folder with a folder of images for each class is needed")
    mode = {1: "L", 3: "RGB"}.get(sources.channels)
    if mode is None:
        raise ValueError(f"channels is {sources.channels}, but it must be 1 or 3")
    images = called(
        repr(data) if named else f"a data set of {data!r}, which must have a folder of images for each class,",
        create_dataset,
        data if named else "",
        root=sources.data_dir if named else data,
        split=sources.split,
        batch_size=sources.batch_size,
        input_img_mode=mode,
        is_training=shuffle,
        **(sources.data_args or {}),
    )
    if not named:
        _check_split(Path(data), Path(images.reader.root), sources.split, strict)
    _check_columns(data, getattr(images, "reader", None))
    if isinstance(images, ImageDataset):
        images = folders.ReadImages(images.reader, mode)
    if labels is not None:
        give_labels(images, labels, sources, in_folders=not named and "class_map" not in (sources.data_args or {}))
    steps = [
        transforms.Resize(round(side * CROPPED) if side >= 160 else side),
        transforms.CenterCrop(side),
        transforms.ToTensor(),
    ]
    grey = mode == "L" and not isinstance(images, folders.ReadImages)
    images.transform = transforms.Compose([transforms.Grayscale(), *steps] if grey else steps)
    if isinstance(images, ImageFolder):
        images.loader = folders.opened
    shuffle = shuffle and not isinstance(images, IterableDataset)
    return DataLoader(images, sources.batch_size, shuffle=shuffle, num_workers=sources.workers)


def _check_reader(data: str) -> None:
    """Raise a ValueError for a name that timm cannot know, and an ImportError where its reader needs a package."""
    if "/" not in data:
        raise ValueError(
            f"{data!r} is not there: pass a folder of images, or a data set that timm knows, such as torch/cifar10, with "
            "--data-dir"
        )
    reader = READERS.get(data.partition("/")[0].lower())
    if reader is not None and find_spec(reader) is None:
        raise ImportError(f"{data!r} is read by the package {reader}: pip install {reader}")


def _check_split(folder: Path, read: Path, split: str, strict: bool) -> None:
    """Raise a ValueError where the split is missing, so that timm would read the whole folder, with splits as classes."""
    inside = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if read == folder and (strict or SPLITS & {name.lower() for name in inside}):
        raise ValueError(f"there is no split {split!r} in {str(folder)!r}, whose folders are {', '.join(inside[:8])}")


def _check_columns(data: str, reader: "Reader | None") -> None:
    """Raise a ValueError where timm's reader of Hugging Face data sets would fail on the first image."""
    sought = [key for key in (getattr(reader, name, None) for name in ("image_key", "label_key")) if key is not None]
    if reader is None or len(sought) < 2 or not len(reader):
        return
    first = reader.dataset[0]  # a missing column may have been added, with nothing in it
    if any(first.get(key) is None for key in sought):
        known = ", ".join(key for key, value in first.items() if value is not None)
        raise ValueError(
            f"{data!r} has the columns {known}, but images are looked for in {sought[0]!r} and labels in {sought[1]!r}: "
            "pass --data_args '{input_key: …, target_key: …}'"
        )
