"""Published benchmarks of corrupted images, read batch by batch from their files."""

from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robusttune.plugins import did_you_mean
from robusttune.types import PathLike

Key: TypeAlias = int | str  # of an image: its row, or its file below the folder of the severity

PICTURES = (".jpeg", ".jpg", ".png")
SEVERITIES = 5
LAYOUTS = (
    "CIFAR-10-C and -100-C (<corruption>.npy and labels.npy), MNIST-C (<corruption>/test_images.npy), and ImageNet-C, "
    "Tiny-ImageNet-C, ImageNet-C-bar and ImageNet-3DCC (<corruption>/<severity>/<class>/*.JPEG)"
)


class Published:
    """The images of a published benchmark in a folder, by corruption and severity.

    Attributes:
        name: the layout and the folder's name.
        corruptions: names of the corruptions in the folder, sorted.
        severities: 1 to 5; [None] if there is only one.

    Args:
        root: the folder; nothing is downloaded.
        wnids: names of the class folders to use, in the order of the model's logits; None for all of them, in the order of `names`
            where these name them all, else sorted. Where each folder is named, other names may stand among them.
        names: the names of the model's classes, in the order of its logits; () if they are not known.
        outputs: the number of the model's logits; None if there is no model.

    Raises:
        ValueError: the layout of the folder or a class is unknown, or it is not known which folder is which output.
    """

    def __init__(
        self,
        root: PathLike,
        *,
        wnids: Sequence[str] | None = None,
        names: Sequence[str] = (),
        outputs: int | None = None,
    ) -> None:
        path = Path(root)
        if not path.is_dir():
            raise ValueError(f"published={str(root)!r} is no folder: download the benchmark and pass where it lies")
        source = _reader(path, wnids, names, outputs)
        if source is None:
            there = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
            raise ValueError(f"{path} holds {there}, but no layout that is known: {LAYOUTS}")
        self.source = source
        self.name = f"{source.layout} in {path.name}"
        self.corruptions = sorted(source.folders)
        self.severities: list[int | None] = list(source.severities)

    def count(self, corruption: str, severity: int | None) -> int:
        """Return the number of images."""
        return len(self.source.keys(self._known(corruption), self._allowed(severity)))

    def subset(self, images: int, seed: int) -> list[Key]:
        """Draw a subset of images, the same under every corruption, for the argument `rows` of `batches`.

        Raises:
            ValueError: there are fewer images.
        """
        keys = self.source.keys(self.corruptions[0], self.severities[0])
        if images > len(keys):
            raise ValueError(f"images={images}, but there are only {len(keys)}: ask for fewer, or leave it out for all")
        order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(seed))[:images]
        return [keys[row] for row in sorted(order.tolist())]

    def batches(
        self, corruption: str, severity: int | None, batch_size: int = 128, *, rows: Sequence[Key] | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Read batches of images (N,C,H,W) uint8 and labels (N,) int64; only those of `rows` unless it is None.

        Raises:
            ValueError: the corruption or severity is unknown, or the files do not fit together.
        """
        corruption, severity = self._known(corruption), self._allowed(severity)
        keys = self.source.keys(corruption, severity)
        if rows is not None:
            there = set(keys)
            lost = [row for row in rows if row not in there]
            if lost:
                raise ValueError(
                    f"{corruption} at severity {severity} lacks {len(lost)} of the images, such as {lost[0]}: download the benchmark "
                    "again, or leave this corruption out of names="
                )
            keys = list(rows)
        for start in range(0, len(keys), batch_size):
            yield self.source.read(corruption, severity, keys[start : start + batch_size])

    def _known(self, corruption: str) -> str:
        if corruption not in self.corruptions:
            hint = did_you_mean(corruption, self.corruptions)
            raise ValueError(f"{self.name} has no {corruption!r}{hint}: there are {', '.join(self.corruptions)}")
        return corruption

    def _allowed(self, severity: int | None) -> int | None:
        if severity not in self.severities:
            raise ValueError(f"severity is {severity!r}, but {self.name} has {self.severities}")
        return severity


def _reader(root: Path, wnids: Sequence[str] | None, names: Sequence[str], outputs: int | None) -> "_Reader | None":
    """Return the reader for the layout of a folder; None for an unknown layout."""
    for arrays in (_Arrays, _Digits):
        if folders := arrays.folders_in(root):
            if wnids is not None:
                raise ValueError("wnids= chooses folders of classes, but here are arrays with labels: leave it out")
            return arrays(folders)
    folders = _Folders.folders_in(root)
    return _Folders(folders, wnids, names, outputs) if folders else None


class _Reader(Protocol):
    """A layout of files; severities and keys are Any, as their types differ between layouts."""

    layout: str
    folders: dict[str, Path]

    @property
    def severities(self) -> Sequence[int | None]: ...

    @property
    def keys(self) -> Callable[[str, Any], list[Any]]: ...

    def read(self, corruption: str, severity: Any, keys: Any) -> tuple[Tensor, Tensor]: ...


class _Arrays:
    """A folder with one array (5·N,H,W,C) per corruption, the severities one after the other, and one array of labels."""

    layout = "arrays as of CIFAR-10-C"
    severities = tuple(range(1, SEVERITIES + 1))

    def __init__(self, folders: dict[str, Path]) -> None:
        self.folders = folders
        labels = np.load(next(iter(folders.values())).with_name("labels.npy"), mmap_mode="r")
        if labels.ndim != 1 or len(labels) % SEVERITIES:
            raise ValueError(
                f"labels.npy has the shape {labels.shape}, but as many labels for each of five severities are needed"
            )
        self.labels, self.images = labels, len(labels) // SEVERITIES

    @staticmethod
    def folders_in(root: Path) -> dict[str, Path]:
        arrays = {path.stem: path for path in root.glob("*.npy") if path.stem != "labels"}
        return arrays if (root / "labels.npy").is_file() else {}

    def keys(self, corruption: str, severity: int) -> list[int]:
        return list(range(self.images))

    def read(self, corruption: str, severity: int, keys: Sequence[int]) -> tuple[Tensor, Tensor]:
        rows = [(severity - 1) * self.images + key for key in keys]
        return _rows_of(self.folders[corruption], self.labels, rows)


class _Digits:
    """A folder per corruption with arrays of test images (N,H,W,C) and their labels."""

    layout = "arrays as of MNIST-C"
    severities = (None,)

    def __init__(self, folders: dict[str, Path]) -> None:
        self.folders = folders

    @staticmethod
    def folders_in(root: Path) -> dict[str, Path]:
        return {path.parent.name: path for path in root.glob("*/test_images.npy")}

    def keys(self, corruption: str, severity: None) -> list[int]:
        return list(range(len(np.load(self.folders[corruption], mmap_mode="r"))))

    def read(self, corruption: str, severity: None, keys: Sequence[int]) -> tuple[Tensor, Tensor]:
        path = self.folders[corruption]
        return _rows_of(path, np.load(path.with_name("test_labels.npy"), mmap_mode="r"), list(keys))


class _Folders:
    """A tree of folders <corruption>/<severity>/<class>/ with one picture per file."""

    layout = "folders as of ImageNet-C"
    severities = tuple(range(1, SEVERITIES + 1))

    def __init__(
        self, folders: dict[str, Path], wnids: Sequence[str] | None, names: Sequence[str], outputs: int | None
    ) -> None:
        self.folders = folders
        # Over all corruptions, so that a class that is missing in one of them does not shift the numbers of the others.
        known = sorted({entry.name for path in folders.values() for level in _levels(path) for entry in _inside(level)})
        order = known if wnids is None else wnids
        if wnids is None and set(known) <= set(names):
            order = names
        elif wnids is None and len(known) < (outputs or 0):
            raise ValueError(
                f"there are {len(known)} class folders, such as {known[0]!r}, for {outputs} outputs of the model, so it is not known "
                "which folder is which output: pass wnids= with the names of all outputs as the folders are called, in their order"
            )
        unknown = [name for name in order if name not in known]
        if unknown and not set(known) <= set(order):
            close = get_close_matches(unknown[0], known, n=1) or known[:1]
            raise ValueError(
                f"wnids= holds {unknown[0]!r}, but there is no such folder: one that exists is {close[0]!r}"
            )
        self.labels = {name: number for number, name in enumerate(order)}
        self.keys = lru_cache(maxsize=8)(self._keys)

    @staticmethod
    def folders_in(root: Path) -> dict[str, Path]:
        # As unpacked from its archives, ImageNet-C has one more level: noise, blur, weather, digital.
        for paths in (_inside(root), [path for family in _inside(root) for path in _inside(family)]):
            folders = {path.name: path for path in paths if _is_number(_inside(path))}
            if folders:
                return folders
        return {}

    def _keys(self, corruption: str, severity: int) -> list[str]:
        levels = _levels(self.folders[corruption])
        if len(levels) != SEVERITIES:
            raise ValueError(
                f"{self.folders[corruption]} has the severities {[level.name for level in levels]}, but five are needed: download "
                "the benchmark again, or leave this corruption out of names="
            )
        classes = [path for path in _inside(levels[severity - 1]) if path.name in self.labels]
        files = [path for folder in classes for path in sorted(folder.iterdir()) if path.suffix.lower() in PICTURES]
        if not files:
            raise ValueError(
                f"{levels[severity - 1]} holds no picture ({', '.join(PICTURES)}) of the model's classes: download the benchmark "
                "again, or pass wnids= with the names of its folders"
            )
        return [f"{path.parent.name}/{path.name}" for path in files]

    def read(self, corruption: str, severity: int, keys: Sequence[str]) -> tuple[Tensor, Tensor]:
        root = _levels(self.folders[corruption])[severity - 1]
        images = [_picture(root / key) for key in keys]
        sizes = sorted({tuple(image.shape[1:]) for image in images})
        if len(sizes) > 1:
            raise ValueError(
                f"pictures in {root} differ in size ({sizes[0]} and {sizes[1]}), but one size is needed: download the benchmark again"
            )
        labels = [self.labels[key.partition("/")[0]] for key in keys]
        return torch.stack(images), torch.tensor(labels)


def _rows_of(path: Path, labels: "np.ndarray[Any, Any]", rows: list[int]) -> tuple[Tensor, Tensor]:
    """Return rows of an array of images in a file, as images (N,C,H,W), and of its labels."""
    images = np.load(path, mmap_mode="r")
    if images.ndim != 4 or images.dtype != np.uint8 or len(images) != len(labels):
        raise ValueError(
            f"{path} holds {images.dtype} of shape {images.shape} for {len(labels)} labels, but uint8 (N,H,W,C) with a label "
            "for each is needed"
        )
    levels = torch.from_numpy(images[rows]).permute(0, 3, 1, 2).contiguous()
    return levels, torch.from_numpy(np.asarray(labels[rows]).astype(np.int64))


def _picture(path: Path) -> Tensor:
    with Image.open(path) as opened:
        return torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1)


def _inside(path: Path) -> list[Path]:
    """List the folders in a folder, sorted."""
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _levels(path: Path) -> list[Path]:
    """List the folders of severities, sorted by their numbers: 1 to 5, or any others that grow."""
    return sorted((level for level in _inside(path) if _is_number([level])), key=lambda level: float(level.name))


def _is_number(paths: Sequence[Path]) -> bool:
    """Return True if there is a path and all names are numbers."""
    return bool(paths) and all(path.name.replace(".", "", 1).isdigit() for path in paths)
