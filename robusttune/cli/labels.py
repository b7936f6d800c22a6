"""The classes that labels stand for, by name, and the order in which the folders of a data set are numbered."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import timm
from timm.data.readers.reader_image_folder import ReaderImageFolder
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from robusttune.cli import folders
from robusttune.cli.errors import note
from robusttune.cli.options import Sources
from robusttune.model.named import LIBRARIES

CLASSES_FILE = "--classes_file with the names of the classes in the order of the model's outputs, one a line"

Images: TypeAlias = DataLoader[tuple[Tensor, Tensor]]


class Labels(NamedTuple):
    """The classes that labels stand for.

    Attributes:
        names: of the classes, by label; None for those of the data, in the order below.
        order: "text" for that of torchvision's ImageFolder, "number" for timm's, in which 2 comes before 10.
    """

    names: Sequence[str] | None = None
    order: Literal["text", "number"] = "text"


BY_TEXT = Labels()


def classes_of(loader: Images) -> int | None:
    """Count the classes of a data set; None if it does not list them."""
    known = names_of(loader.dataset) or getattr(getattr(loader.dataset, "reader", None), "class_to_idx", None)
    return len(known) if known else None


def names_of(images: Dataset[tuple[Tensor, Tensor]]) -> list[str] | None:
    """List the names of a data set's classes by label; None if it does not say."""
    known = getattr(images, "classes", None) or getattr(getattr(images, "reader", None), "class_to_idx", None)
    if isinstance(known, Mapping):
        by_label = {label: name for name, label in known.items()}
        known = [by_label.get(label) for label in range(len(known))]
    return None if not known or None in known else [str(name) for name in known]


def check_one_order(sources: Sources, loader: Images) -> None:
    """Raise a ValueError where a model that came with labels may number the folders of the data in another order."""
    images = loader.dataset
    by_folder = isinstance(getattr(images, "reader", None), ReaderImageFolder)
    names = names_of(images)
    if names is None or not by_folder or "class_map" in (sources.data_args or {}):
        return
    orders = folders.two_orders(names)
    if orders is not None and came_with_labels(sources, len(names)):
        raise ValueError(
            f"the model came with labels, and the names of its classes are not known: {orders}; pass {CLASSES_FILE}"
        )


def came_with_labels(sources: Sources, classes: int) -> bool:
    """Return True if a model may have been trained on these classes before: it is not made with a new head for them."""
    library, _, name = sources.model.partition(":")
    if library == "timm" and sources.pretrained and sources.checkpoint is None:
        known = timm.get_pretrained_cfg(name)
        return known is None or known.num_classes == classes
    return sources.checkpoint is not None or library not in LIBRARIES or sources.pretrained


def give_labels(images: Dataset[tuple[Tensor, Tensor]], labels: Labels, sources: Sources, *, in_folders: bool) -> None:
    """Number the classes of a data set as the labels say, by name; note what is missing.

    Raises:
        ValueError: it has other classes, or they can be read in two ways.
    """
    where = f"the split {sources.split!r} of {sources.data!r}"
    own: Sequence[str] | None
    names: Sequence[str] | None
    if in_folders:
        own = _folder_labels(images.reader, where)  # type: ignore[attr-defined]
        names = labels.names or _folder_names(Path(images.reader.root), labels, sources)  # type: ignore[attr-defined]
    else:
        own = names_of(images)
        names = labels.names or own
    if own is None or names is None:
        if labels.names is not None:
            note(f"{where} does not name its classes: its labels are taken for those of the model")
        return
    table, missing = folders.by_name(own, names, where)
    if missing:
        note(f"{where} has no image of {len(missing)} of {len(names)} classes: {folders.shown(missing)}")
    if any(label != row for label, row in table.items()):
        images.target_transform = folders.Relabelled(table)  # type: ignore[attr-defined]
    images.classes = list(names)  # type: ignore[attr-defined]


def _folder_labels(reader: folders.FolderReader, where: str) -> list[str]:
    """Label the images of a folder by its class folders, sorted as text; return their names."""
    folder = folders.read_folder(reader)
    if folder.left_out:
        note(f"{folder.left_out} images in {where} lie in no class folder, or in a hidden one: they are left out")
    names = sorted(set(folder.classes))
    rows = {name: row for row, name in enumerate(names)}
    reader.samples = [(path, rows[name]) for path, name in zip(folder.paths, folder.classes, strict=True)]
    return names


def _folder_names(read: Path, labels: Labels, sources: Sources) -> list[str]:
    """List the class folders of the training split, if there is one, else those of the folder that is read.

    Raises:
        ValueError: a class folder has no image, so that its place in the order is not clear.
    """
    splits = [Path(sources.data) / name for name in ("train", "training")]
    place = next((each for each in splits if each.is_dir() and read != Path(sources.data)), read)
    names, empty = folders.class_folders(place, (sources.data_args or {}).get("input_key"))
    if empty:
        raise ValueError(
            f"{str(place)!r} has no image for the classes {folders.shown(empty)}, so the others can be numbered with them or "
            f"without: remove the empty folders, or pass {CLASSES_FILE}"
        )
    return folders.in_timm_order(names) if labels.order == "number" else sorted(names)
