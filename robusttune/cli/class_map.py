"""Tables of labels by the names of classes, as timm's class map is one."""

from collections.abc import Mapping
from pathlib import Path

from timm.data.readers.reader_image_folder import ReaderImageFolder

from robusttune.cli.errors import note
from robusttune.cli.image_files import ENDINGS, survey
from robusttune.data.class_names import shown


def names_by_label(table: Mapping[object, int]) -> list[str] | None:
    """List names in the order of their labels, those of one label joined by "or"; None if labels have gaps.

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
        reader: a reader of timm.
        where: names the images in messages.

    Returns:
        None if the map has numbers instead of names.

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
