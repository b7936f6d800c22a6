"""Loaders of images by name, for the command line."""

from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from timm.data.dataset import ImageDataset
from timm.data.dataset_factory import create_dataset
from torch.utils.data import DataLoader, IterableDataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from robusttune.cli import columns, folders, image_files, look
from robusttune.cli.errors import note
from robusttune.cli.labels import BY_TEXT, Images, Labels, give_labels
from robusttune.cli.options import Sources
from robusttune.model.named import NamedModel, called
from robusttune.run.settings import COUNT, NOT_NEGATIVE_COUNT, check_number

UNCONVERTED = ("wds", "hfids")  # timm's readers of these decode images, and would convert those of 16 bits to 8
READERS = {"hfds": "datasets", "hfids": "datasets", "wds": "webdataset", "tfds": "tensorflow_datasets"}
CROPPED = 1.14  # the shorter side before the central crop, as a multiple of the side after it


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
    data = sources.data
    check_number("size", sources.size, COUNT)
    check_number("batch_size", sources.batch_size, COUNT)
    check_number("workers", sources.workers, NOT_NEGATIVE_COUNT)
    named = sources.data_dir is not None or not data or not Path(data).exists()
    if named:
        _check_reader(data, sources.data_dir)
    else:
        known = labels is not None and (labels.names is not None or labels.came is not None)
        look.check_folder(sources, labelled=labels is not None, classes_known=known)
    mode = {1: "L", 3: "RGB"}.get(sources.channels)
    if mode is None:
        raise ValueError(f"channels is {sources.channels}, but it must be 1 or 3")
    arguments = dict(sources.data_args or {})
    kind = data.partition("/")[0].lower() if named else ""
    if not named and isinstance(arguments.get("class_map"), Mapping):
        arguments["class_map"] = {str(name): label for name, label in arguments["class_map"].items()}
    if kind in ("", "wds"):
        arguments.setdefault("input_key", ";".join(image_files.ENDINGS) if kind == "" else image_files.SHARD_KEYS)
    images = called(
        repr(data) if named else f"a data set of {data!r}, which must have a folder of images for each class,",
        create_dataset,
        data if named else "",
        root=sources.data_dir if named else data,
        split=sources.split,
        batch_size=sources.batch_size,
        input_img_mode="" if kind in UNCONVERTED else mode,
        is_training=shuffle,
        **arguments,
    )
    if not named:
        _check_split(Path(data), Path(images.reader.root), sources.split, strict)
        _say_what_is_read(images.reader, f"the split {sources.split!r} of {data!r}")
    if kind == "torch":
        _check_split_of_torchvision(sources, images, strict)
    columns.check_columns(data, getattr(images, "reader", None))
    if isinstance(images, ImageDataset):
        images = folders.ReadImages(images.reader, mode)
        if sources.workers:  # which write to it, too
            images.unread.share_memory_()  # type: ignore[no-untyped-call]
    if labels is not None:
        give_labels(images, labels, sources, in_folders=not named and "class_map" not in (sources.data_args or {}))
    _give_transform(images, sources.size, mode)
    shuffle = shuffle and not isinstance(images, IterableDataset)
    return DataLoader(images, sources.batch_size, shuffle=shuffle, num_workers=sources.workers)


def _give_transform(images: "folders.ReadImages | ImageFolder", side: int, mode: str) -> None:
    """Scale images and crop them to a square, in all bit depths that their files have."""
    steps = [
        transforms.Resize(round(side * CROPPED) if side >= 160 else side),
        transforms.CenterCrop(side),
        transforms.ToTensor(),
        image_files.Expanded(mode),
    ]
    if isinstance(images, ImageFolder):
        images.loader = partial(image_files.opened, mode=mode)
    elif not isinstance(images, folders.ReadImages):
        steps.insert(0, image_files.Converted(mode))
    images.transform = transforms.Compose(steps)


def _say_what_is_read(reader: folders.FolderReader, where: str) -> None:
    """Note files that are no images, and parts of images that are dropped."""
    others = image_files.unread(image_files.survey(Path(reader.root)).others)
    for each in ([] if others is None else [f"{others} in {where}"]) + image_files.oddities(
        [path for path, _ in reader.samples]
    ):
        note(each)


def _check_reader(data: str, place: str | None) -> None:
    """Raise a ValueError for a name that timm cannot know, and an ImportError if its reader needs a package."""
    if "/" not in data or (place is None and data.partition("/")[0].lower() not in ("torch", *READERS)):
        raise ValueError(
            f"{data!r} is not there: pass a folder of images, or a data set that timm knows, such as torch/cifar10, with "
            "--data_dir"
        )
    kind, _, name = data.partition("/")
    reader = READERS.get(kind.lower())
    if reader is not None and find_spec(reader) is None:
        raise ImportError(f"{data!r} is read by the package {reader}: pip install {reader}")
    if reader == "datasets" and (Path(name) / "state.json").is_file():
        raise ValueError(
            f"{name!r} holds a single Dataset, without splits: save them together, as in "
            "datasets.DatasetDict(train=…, validation=…).save_to_disk(folder)"
        )
    if (
        reader == "datasets"
        and place is not None
        and Path(name).is_dir()
        and Path(place, name).resolve() == Path(name).resolve()
    ):
        raise ValueError(
            f"--data_dir is {place!r}, which is {name!r} itself: its cache would be read as data; pass another folder"
        )


def _check_split(folder: Path, read: Path, split: str, strict: bool) -> None:
    """Raise a ValueError if the split is missing, so that timm would read the whole folder, with splits as classes."""
    inside = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if read == folder and (strict or look.SPLITS & {name.lower() for name in inside}):
        raise ValueError(
            f"there is no split {split!r} in {str(folder)!r}, whose folders are {', '.join(inside[:8])}: name one of them"
        )


def _check_split_of_torchvision(sources: Sources, images: object, strict: bool) -> None:
    """Raise a ValueError if timm would read another split of a data set of torchvision than the one that is named."""
    if isinstance(images, ImageFolder):
        _check_split(Path(sources.data_dir or ""), Path(images.root), sources.split, strict)
    elif hasattr(images, "train") and sources.split not in look.SPLITS:
        raise ValueError(
            f"there is no split {sources.split!r} in {sources.data!r}, which has train and test: name one of them"
        )
