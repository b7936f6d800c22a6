"""The class names of labels, and the order in which the folders of a data set are numbered."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import timm
from timm.data.readers.reader_image_folder import ReaderImageFolder
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from robusttune.cli import folders, image_files
from robusttune.cli.class_map import names_by_label, names_in_class_map
from robusttune.cli.columns import names_in_column
from robusttune.cli.errors import note
from robusttune.cli.model_labels import CLASSES_FILE, Came
from robusttune.cli.options import Sources
from robusttune.data.class_names import in_timm_order, shown, two_orders
from robusttune.model.named import LIBRARIES

Images: TypeAlias = DataLoader[tuple[Tensor, Tensor]]


class Labels(NamedTuple):
    """The class names of labels, and their order.

    Attributes:
        names: the names of the classes, by label; None for those of the data, in the order below.
        order: "text" for that of torchvision's ImageFolder, "number" for timm's, in which 2 comes before 10.
        came: the names that the model came with, which count before those of the data.
    """

    names: Sequence[str] | None = None
    order: Literal["text", "number"] = "text"
    came: Came | None = None


BY_TEXT = Labels()


def classes_of(loader: Images) -> int | None:
    """Count the classes of a data set; None if it does not list them."""
    known = names_of(loader.dataset) or getattr(getattr(loader.dataset, "reader", None), "class_to_idx", None)
    return len(known) if known else None


def names_of(images: Dataset[tuple[Tensor, Tensor]]) -> list[str] | None:
    """List the names of a data set's classes by label; None if it does not say.

    Names that share a label, as a class map may have them, are joined by "or".
    """
    known = getattr(images, "classes", None) or getattr(getattr(images, "reader", None), "class_to_idx", None)
    if isinstance(known, Mapping):
        known = names_by_label(known)
    return None if not known else [str(name) for name in known]


def check_one_order(sources: Sources, loader: Images, labels: Labels) -> None:
    """Raise a ValueError if a model that came with labels may number the folders of the data in another order."""
    images = loader.dataset
    by_folder = isinstance(getattr(images, "reader", None), ReaderImageFolder)
    names = names_of(images)
    if names is None or not by_folder or "class_map" in (sources.data_args or {}):
        return
    if labels.came is not None and tuple(names) in labels.came.spellings:
        return
    orders = two_orders(names)
    if orders is not None and came_with_labels(sources, len(names)):
        raise ValueError(
            f"the model came with labels, and the names of its classes are not known: {orders}; pass {CLASSES_FILE}"
        )


def came_with_labels(sources: Sources, classes: int) -> bool:
    """Return True if a model may have been trained on these classes before, as its head is not a new one for them."""
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
    own = _folder_labels(images.reader, where) if in_folders else _own_names(images, sources, where)  # type: ignore[attr-defined]
    names = labels.names
    if names is None and labels.came is not None:
        names = labels.came.names_for(own, where)
    if own is None:
        of = "numbers from 0" if names is None else "those of the model"
        note(f"{where} does not name its classes: its labels are taken for {of}")
    if names is None:
        names = _folder_names(Path(images.reader.root), labels, sources) if in_folders else own  # type: ignore[attr-defined]
    if own is not None and names is not None:
        table, missing = folders.by_name(own, names, where)
        if missing:
            note(f"{where} has no image of {len(missing)} of {len(names)} classes: {shown(missing)}")
        if any(label != row for label, row in table.items()):
            images.target_transform = folders.Relabelled(table, names)  # type: ignore[attr-defined]
    if names is not None:
        images.classes = list(names)  # type: ignore[attr-defined]


def _own_names(images: Dataset[tuple[Tensor, Tensor]], sources: Sources, where: str) -> list[str] | None:
    """List the names of the classes of a data set with a class map, or of a named one; None if it does not say.

    Raises:
        ValueError: a class map leaves labels out, or labels are texts in a data set that is streamed.
    """
    reader = getattr(images, "reader", None)
    if "class_map" in (sources.data_args or {}):
        return names_in_class_map(reader, where)
    return names_in_column(reader, where) or names_of(images)


def _folder_labels(reader: folders.FolderReader, where: str) -> list[str]:
    """Label the images of a folder by its class folders, sorted as text; return their names."""
    folder = folders.read_folder(reader)
    if folder.left_out:
        note(f"{folder.left_out} images in {where} lie in no class folder, or are hidden: they are left out")
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
        why = image_files.unread(image_files.survey(place).others)
        raise ValueError(
            f"{str(place)!r} has no image for the classes {shown(empty)}{f' ({why})' if why else ''}, so the others can "
            f"be numbered with them or without: remove the empty folders, or pass {CLASSES_FILE}"
        )
    return in_timm_order(names) if labels.order == "number" else sorted(names)
