"""A look at the folders of a data set before their images are read: what they hold, and which images two of them share."""

import hashlib
import os
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from robusttune.cli import folders, image_files
from robusttune.cli.options import Sources

TRAINING = ("train", "training")
JUDGING = ("validation", "val", "valid", "eval", "evaluation")
TESTING = ("test", "testing")
SPLITS = {*TRAINING, *JUDGING, *TESTING}
ENDING = 4096  # bytes at the end of a file, in which two images of the same size differ
PATIENCE = 30.0  # seconds for reading files, of which a disk can be slow to give the first
LISTED = 3


def split_folder(data: Path, split: str) -> Path:
    """Return the folder that timm reads for a split: the one of this name or of a synonym; the data itself without one."""
    name = split.partition("[")[0]
    synonyms = next((names for names in (TRAINING, JUDGING) if name in names), ())
    return next((data / each for each in (name, *synonyms) if (data / each).is_dir()), data)


def splits_in(data: Path, endings: str | None = None) -> dict[str, Path]:
    """Return the folders in a folder of data that have the name of a split and hold images, by their names."""
    full, _ = folders.class_folders(data, endings)
    return {name: data / name for name in full if name.lower() in SPLITS}


def validation_beside(sources: Sources) -> str | None:
    """Name the split for validation that lies beside the training split; None if there are not both."""
    data = Path(sources.data)
    if not is_folder(sources) or sources.split not in TRAINING or split_folder(data, sources.split) == data:
        return None
    return next((name for name in JUDGING if name in splits_in(data, endings_of(sources))), None)


def is_folder(sources: Sources) -> bool:
    """Return True for a folder of images, False for the name of a data set."""
    return bool(sources.data) and sources.data_dir is None and Path(sources.data).is_dir()


def endings_of(sources: Sources) -> str | None:
    """Return the endings of image files that the user named, with semicolons between."""
    endings = (sources.data_args or {}).get("input_key")
    return None if endings is None else str(endings)


def has_no_classes(sources: Sources) -> bool:
    """Return True for a folder that holds images, but no folder of images for each class, which labels would come from."""
    if not is_folder(sources) or "class_map" in (sources.data_args or {}):
        return False
    place, endings = split_folder(Path(sources.data), sources.split), endings_of(sources)
    return not folders.class_folders(place, endings)[0] and _holds_images(place, endings)


def check_folder(sources: Sources, *, labelled: bool, classes_known: bool) -> None:
    """Raise a ValueError if a path cannot be a data set, in words that say what it holds and what to do.

    Args:
        sources: name the path, and a split of it.
        labelled: the images need labels.
        classes_known: the names of the classes do not come from these folders, which may hold fewer.
    """
    data, endings = Path(sources.data), endings_of(sources)
    if not data.is_dir():
        raise ValueError(f"{str(data)!r} is a file, but a folder with a folder of images for each class is needed")
    if "[" in sources.split:
        raise ValueError(f"split is {sources.split!r}, but a folder is read as a whole: name a split without brackets")
    place = split_folder(data, sources.split)
    full, _ = folders.class_folders(place, endings)
    if not full and not _holds_images(place, endings):
        why = image_files.unread(image_files.survey(place).others)
        known = ", ".join(_kinds(endings))
        raise ValueError(
            f"there is no image in {str(place)!r}: {_contents(place) if why is None else why}; images have the endings {known}"
        )
    if not labelled or "class_map" in (sources.data_args or {}):
        return
    if place == data and splits_in(data, endings):
        return  # the split is missing, and the reader of the split says so
    if not full:
        raise ValueError(
            f"{str(place)!r} has images, but no folder of images for each class, which its labels come from: put the images "
            "of each class into a folder with its name; without labels, pretrain takes them, as well as harden and evaluate for "
            "a trained model, whose answers then stand for labels"
        )
    trained = split_folder(data, TRAINING[0])
    named = full if place == data or trained == data else folders.class_folders(trained, endings)[0]
    if len(named) > 1 or len(full) > 1 or classes_known:
        return  # a split of one class is no fault where the training split has others
    (only,) = full
    inner, _ = folders.class_folders(place / only, endings)
    if inner:
        raise ValueError(
            f"{str(place)!r} has one folder, {only!r}, whose folders hold the images: pass --data {place / only}"
        )
    raise ValueError(
        f"{str(place)!r} has images of a single class, {only!r}, but a classifier needs at least two: pass a folder with a "
        "folder of images for each class"
    )


def _kinds(endings: str | None) -> tuple[str, ...]:
    return tuple(endings.split(";")) if endings else image_files.ENDINGS


def _holds_images(place: Path, endings: str | None) -> bool:
    """Return True if images lie right in a folder."""
    return any(_is_image(each.name, _kinds(endings)) for each in place.iterdir() if each.is_file())


def _is_image(name: str, kinds: tuple[str, ...]) -> bool:
    return name.lower().endswith(kinds) and not name.startswith(".")


def _contents(folder: Path) -> str:
    inside = sorted(each.name + "/" * each.is_dir() for each in folder.iterdir())
    return f"it holds {', '.join(inside[:LISTED])}{' …' * (len(inside) > LISTED)}" if inside else "it is empty"


def images_under(folder: Path, endings: str | None = None) -> list[str]:
    """List the paths of all images below a folder, sorted; hidden files and folders do not count."""
    found, kinds = [], _kinds(endings)
    for place, inside, names in os.walk(folder, followlinks=True):
        inside[:] = [name for name in inside if not name.startswith(".")]
        found += [os.path.join(place, name) for name in names if _is_image(name, kinds)]
    return sorted(found)


def count_in_words(folder: Path, images: Sequence[str]) -> str:
    """Count images, and the folders right below this one that they lie in.

    Example:
        >>> count_in_words(Path("train"), ["train/cat/1.png", "train/cat/2.png", "train/dog/1.png"])
        '3 images in 2 class folders'
    """
    places = [Path(path).relative_to(folder).parts[:-1] for path in images]
    classes = len({parts[0] for parts in places if parts})
    several = f"{len(images):,} image{'s' * (len(images) != 1)}"
    return f"{several} in {classes} class folder{'s' * (classes != 1)}" if classes else several


class Shared(NamedTuple):
    """Images with the same content in two lists of files.

    Attributes:
        pairs: a path of the first list and one of the second, for each image of the second that is in the first, too.
        complete: False if reading took too long, so that there may be more.
    """

    pairs: list[tuple[str, str]]
    complete: bool


def shared_images(first: Sequence[str], second: Sequence[str], patience: float = PATIENCE) -> Shared:
    """Find the images that are in both lists, by content.

    Three sieves, each for the files that the one before has left: sizes, the last bytes, and all bytes. So few files are
    read in full but those that are in both.

    Args:
        first, second: paths of files.
        patience: seconds after which no more files are read.
    """
    until, complete = time.monotonic() + patience, True
    keys: list[dict[str, Hashable]] = [dict.fromkeys(first, ()), dict.fromkeys(second, ())]
    for of in (os.path.getsize, _ending, _content):
        keyed = [_keyed(known, of, until) for known in keys]
        complete = complete and all(len(new) == len(known) for new, known in zip(keyed, keys, strict=True))
        both = set(keyed[0].values()) & set(keyed[1].values())
        keys = [{path: key for path, key in known.items() if key in both} for known in keyed]
    places = {key: path for path, key in keys[0].items()}
    return Shared([(places[key], path) for path, key in keys[1].items()], complete)


def _keyed(known: dict[str, Hashable], of: Callable[[str], Hashable], until: float) -> dict[str, Hashable]:
    """Add a property of the files to their keys; files that cannot be read, or for which there is no time, are left out."""
    keyed: dict[str, Hashable] = {}
    for path, key in known.items():
        if time.monotonic() > until:
            break
        try:
            keyed[path] = key, of(path)
        except OSError:
            keyed[path] = object()  # like no other
    return keyed


def _ending(path: str) -> bytes:
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - ENDING))
        return _digest([file.read()])


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return _digest(iter(lambda: file.read(2**20), b""))


def _digest(parts: Iterable[bytes]) -> bytes:
    total = hashlib.blake2b(digest_size=16)
    for part in parts:
        total.update(part)
    return total.digest()
