"""Columns of images and labels in data sets of Hugging Face, and entries in those of webdataset."""

import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast


class Column(Protocol):
    """A table of Hugging Face, as far as it is needed."""

    def __getitem__(self, row: int) -> Mapping[str, object]: ...
    def __len__(self) -> int: ...
    def unique(self, column: str) -> list[str | None]: ...


class Texts(Protocol):
    """A reader of a Hugging Face data set, as timm has it, whose labels may be texts."""

    dataset: Column
    class_to_idx: dict[str, int]
    remap_class: bool


class Shards(Protocol):
    """A reader of webdataset, as timm has it."""

    root: str
    target_key: str | None
    split_info: "Split"


class Split(Protocol):
    """A split of webdataset: the names of its files in the root, and the field of its labels, if it has one."""

    filenames: Sequence[str]
    alt_label: str


def check_columns(data: str, reader: object) -> None:
    """Raise a ValueError if a reader of timm would fail on the first image, or leave out all of them.

    Args:
        data: the name of the data set.
        reader: a reader of Hugging Face or webdataset; others are not checked.
    """
    if hasattr(reader, "split_info") and hasattr(reader, "filename_key"):
        _check_shard(data, cast("Shards", reader))
        return
    image, label = (_first_of(reader, names) for names in (("image_key", "input_key"), ("label_key", "target_key")))
    if image is None or label is None or "/" in label or "," in label:  # of columns within columns, and of several
        return
    if hasattr(reader, "dataset"):
        table = cast("Texts", reader).dataset
        # a missing column may have been added, with nothing in it
        known = [key for key, value in table[0].items() if value is not None] if len(table) else [image, label]
    else:
        features = _features_of(reader)
        known = list(features) if isinstance(features, Mapping) else [image, label]
    if image not in known or label not in known:
        raise ValueError(
            f"{data!r} has the columns {', '.join(known)}, but images are read from {image!r} and labels from {label!r}: "
            "pass --data_args '{input_key: …, target_key: …}'"
        )


def _first_of(reader: object, names: Sequence[str]) -> str | None:
    return next((str(getattr(reader, name)) for name in names if getattr(reader, name, None)), None)


def _check_shard(data: str, reader: Shards) -> None:
    """Raise a ValueError if the first sample of the first file, if it lies here, has no label that can be read."""
    path = Path(reader.root, next(iter(reader.split_info.filenames), ""))
    if reader.target_key or reader.split_info.alt_label or not path.is_file():
        return
    entries: dict[str, bytes] = {}
    with tarfile.open(path) as shard:
        sample = None
        for member in shard:
            key, _, entry = member.name.rpartition("/")[2].partition(".")
            if sample not in (None, key):
                break
            file = shard.extractfile(member) if entry == "cls" else None
            sample, entries[entry] = key, b"" if file is None else file.read()
    label = entries.get("cls")
    if label is None or not label.strip().lstrip(b"-").isdigit():
        held = "no entry cls" if label is None else f"{label.decode(errors='replace')!r} in the entry cls"
        raise ValueError(
            f"{data!r} has {held} among {', '.join(sorted(entries))}, but labels are whole numbers in cls: write them there, or, "
            "for a number in the entry json, pass --data_args '{target_key: …}' with the name of its field"
        )


def names_in_column(reader: object, where: str) -> list[str] | None:
    """List the names of labels in a data set of Hugging Face, or number labels that are texts; None if it has numbers.

    Raises:
        ValueError: an image has no label, or the data set is streamed, so that its texts are not known beforehand.
    """
    key = _first_of(reader, ("label_key", "target_key"))
    features = _features_of(reader)
    kind = features.get(key) if isinstance(features, Mapping) else None
    names = getattr(kind, "names", None)
    if names is not None or getattr(kind, "dtype", None) not in ("string", "large_string"):
        return None if names is None else list(names)
    read = cast("Texts", reader)
    if not hasattr(reader, "dataset"):
        raise ValueError(
            f"the labels of {where} are texts, and a data set that is streamed does not list them: read it by hfds/… in the "
            "place of hfids/…, or pass --data_args '{class_map: FILE}'"
        )
    texts = read.dataset.unique(key or "")
    names = sorted(text for text in texts if text is not None)
    if len(names) < len(texts):
        raise ValueError(
            f"{where} has images without a label in the column {key!r}: leave them out, or name another column"
        )
    read.class_to_idx, read.remap_class = {name: label for label, name in enumerate(names)}, True
    return names


def _features_of(reader: object) -> object:
    """Return the columns of a data set of Hugging Face; for one that is streamed, its beginning may have to be read."""
    if hasattr(reader, "dataset"):
        return getattr(reader.dataset, "features", None)
    builder = getattr(reader, "builder", None)
    known = getattr(getattr(builder, "info", None), "features", None)
    if builder is None or known is not None or not hasattr(builder, "as_streaming_dataset"):
        return known
    return getattr(builder.as_streaming_dataset(split=getattr(reader, "split", None)), "features", None)
