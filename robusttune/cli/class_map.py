"""Tables of labels by the names of classes: of timm's class map, or of a column of texts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

from timm.data.readers.reader_image_folder import ReaderImageFolder

from robusttune.cli.errors import note
from robusttune.cli.folders import shown
from robusttune.cli.image_files import ENDINGS, survey


class Column(Protocol):
    """A table of Hugging Face, as far as it is needed."""

    def unique(self, column: str) -> list[str | None]: ...


class Texts(Protocol):
    """A reader of a Hugging Face data set, as timm has it, whose labels may be texts."""

    dataset: Column
    class_to_idx: dict[str, int]
    remap_class: bool


def names_by_label(table: Mapping[object, int]) -> list[str] | None:
    """List names in the order of their labels, those of one label joined by "or"; None where labels have gaps.

    Example:
        >>> names_by_label({"cat": 0, "car": 1, "dog": 0})
        ['cat or dog', 'car']
    """
    by_label: dict[int, list[str]] = {}
    for name, label in table.items():
        if name != "":  # an empty last line
            by_label.setdefault(label, []).append(str(name))
    full = sorted(by_label) == list(range(len(by_label)))
    return [" or ".join(by_label[label]) for label in sorted(by_label)] if full else None


def names_in_class_map(reader: object, where: str) -> list[str] | None:
    """List the names in the class map of a reader by label; note the folders that it leaves out.

    Args:
        reader: of timm.
        where: names the images in messages.

    Returns:
        None where the map has numbers in the place of names.

    Raises:
        ValueError: no class has one of the labels below the largest.
    """
    table: Mapping[object, int] = getattr(reader, "class_to_idx", {})
    if not all(isinstance(name, str) for name in table):
        return None
    names = names_by_label(table)
    if names is None:
        gaps = sorted(set(range(max(table.values()))) - {label for name, label in table.items() if name != ""})
        raise ValueError(
            f"the class map has no class for the labels {shown([str(label) for label in gaps])}: number the classes from 0; in a "
            "text file write each once, one a line, without empty lines"
        )
    if isinstance(reader, ReaderImageFolder):
        found = survey(Path(reader.root), ENDINGS).images
        left = sorted({place.name for place in found if place.name not in table})
        if left:
            count = sum(images for place, images in found.items() if place.name in left)
            note(f"the class map does not name {shown(left)} of {where}: {count} images are left out")
    return names


def names_in_column(reader: object, where: str) -> list[str] | None:
    """List the names of labels in a data set of Hugging Face, or number labels that are texts; None where it has numbers.

    Raises:
        ValueError: an image has no label, or the data set is streamed, so that its texts are not known beforehand.
    """
    key = getattr(reader, "label_key", None) or getattr(reader, "target_key", None)
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
    texts = read.dataset.unique(str(key))
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
