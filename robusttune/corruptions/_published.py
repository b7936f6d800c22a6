"""Corrupted images that others have published, read from their files as they are asked for."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

PICTURES = (".jpeg", ".jpg", ".png")
SEVERITIES = 5
LAYOUTS = (
    "CIFAR-10-C and -100-C (<corruption>.npy and labels.npy), MNIST-C (<corruption>/test_images.npy), and ImageNet-C, "
    "Tiny-ImageNet-C, ImageNet-C-bar and ImageNet-3DCC (<corruption>/<severity>/<class>/*.JPEG)"
)


class Published:
    """The images of a published benchmark in a folder, by corruption and severity.

    Attributes:
        name: which layout was found, and the folder's name.
        corruptions: those that are there, sorted.
        severities: 1 to 5; [None] where there is only one.

    Args:
        root: the folder; nothing is downloaded.
        wnids: of folders of classes, those to use, in the order of the model's logits; all of them, sorted, unless given.

    Raises:
        ValueError: no layout is recognised, or unknown classes.
    """

    def __init__(self, root: Any, *, wnids: Sequence[str] | None = None) -> None:
        path = Path(root)
        if not path.is_dir():
            raise ValueError(f"published={str(root)!r} is no folder: download the benchmark and pass where it lies")
        self.source = _found(path, wnids)
        if self.source is None:
            there = ", ".join(sorted(each.name for each in path.iterdir())[:8]) or "nothing"
            raise ValueError(f"{path} holds {there}, but no layout that is known: {LAYOUTS}")
        self.name = f"{self.source.layout} in {path.name}"
        self.corruptions = sorted(self.source.folders)
        self.severities: list[int | None] = list(self.source.severities)

    def count(self, corruption: str, severity: int | None) -> int:
        """How many images there are."""
        return len(self.source.keys(self._known(corruption), self._allowed(severity)))

    def subset(self, images: int, seed: int) -> list[Any]:
        """Which images to use, the same under every corruption; for `batches`."""
        keys = self.source.keys(self.corruptions[0], self.severities[0])
        if images > len(keys):
            raise ValueError(f"images={images}, but there are only {len(keys)}: ask for fewer, or leave it out for all")
        order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(seed))[:images]
        return [keys[row] for row in sorted(order.tolist())]

    def batches(
        self, corruption: str, severity: int | None, batch_size: int = 128, *, rows: Sequence[Any] | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (N,C,H,W) uint8 and labels (N,) int64; of `rows` alone, if given.

        Raises:
            ValueError: unknown corruptions or severities, files that do not fit together.
        """
        corruption, severity = self._known(corruption), self._allowed(severity)
        keys = self.source.keys(corruption, severity)
        if rows is not None:
            there = set(keys)
            lost = [row for row in rows if row not in there]
            if lost:
                raise ValueError(
                    f"{corruption} at severity {severity} lacks {len(lost)} of the images, such as {lost[0]}"
                )
            keys = list(rows)
        for start in range(0, len(keys), batch_size):
            yield self.source.read(corruption, severity, keys[start : start + batch_size])

    def _known(self, corruption: str) -> str:
        if corruption not in self.corruptions:
            close = get_close_matches(str(corruption), self.corruptions, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ValueError(f"{self.name} has no {corruption!r}{hint}: there are {', '.join(self.corruptions)}")
        return corruption

    def _allowed(self, severity: int | None) -> int | None:
        if severity not in self.severities:
            raise ValueError(f"severity is {severity!r}, but {self.name} has {self.severities}")
        return severity


def _found(root: Path, wnids: Sequence[str] | None) -> Any:
    """What reads the folder, by what lies in it; None for no known layout."""
    for arrays in (_Arrays, _Digits):
        if found := arrays.found(root):
            if wnids is not None:
                raise ValueError("wnids= chooses folders of classes, but here are arrays with labels: leave it out")
            return arrays(found)
    found = _Folders.found(root)
    return _Folders(found, wnids) if found else None


class _Arrays:
    """One array (5·N,H,W,C) for each corruption, the severities one after the other, and one of labels."""

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
    def found(root: Path) -> dict[str, Path]:
        arrays = {path.stem: path for path in root.glob("*.npy") if path.stem != "labels"}
        return arrays if (root / "labels.npy").is_file() else {}

    def keys(self, corruption: str, severity: int) -> list[int]:
        return list(range(self.images))

    def read(self, corruption: str, severity: int, keys: Sequence[int]) -> tuple[Tensor, Tensor]:
        rows = [(severity - 1) * self.images + key for key in keys]
        return _taken(self.folders[corruption], self.labels, rows)


class _Digits:
    """A folder for each corruption with arrays of test images (N,H,W,C) and their labels."""

    layout = "arrays as of MNIST-C"
    severities = (None,)

    def __init__(self, folders: dict[str, Path]) -> None:
        self.folders = folders

    @staticmethod
    def found(root: Path) -> dict[str, Path]:
        return {path.parent.name: path for path in root.glob("*/test_images.npy")}

    def keys(self, corruption: str, severity: None) -> list[int]:
        return list(range(len(np.load(self.folders[corruption], mmap_mode="r"))))

    def read(self, corruption: str, severity: None, keys: Sequence[int]) -> tuple[Tensor, Tensor]:
        path = self.folders[corruption]
        return _taken(path, np.load(path.with_name("test_labels.npy"), mmap_mode="r"), list(keys))


class _Folders:
    """A picture a file, in <corruption>/<severity>/<class>/."""

    layout = "folders as of ImageNet-C"
    severities = tuple(range(1, SEVERITIES + 1))

    def __init__(self, folders: dict[str, Path], wnids: Sequence[str] | None) -> None:
        self.folders = folders
        # Over all of them, so that a class that one corruption lacks does not shift the others.
        every = sorted({own.name for path in folders.values() for level in _levels(path) for own in _inside(level)})
        strange = [name for name in wnids or () if name not in every]
        if strange:
            close = get_close_matches(strange[0], every, n=1) or every[:1]
            raise ValueError(
                f"wnids= holds {strange[0]!r}, of which there is no folder: there is {close[0]!r}, for one"
            )
        self.labels = {name: number for number, name in enumerate(wnids if wnids is not None else every)}
        self.keys = lru_cache(maxsize=8)(self._keys)

    @staticmethod
    def found(root: Path) -> dict[str, Path]:
        # As unpacked from its archives, ImageNet-C has one more level: noise, blur, weather, digital.
        for places in (_inside(root), [each for family in _inside(root) for each in _inside(family)]):
            found = {path.name: path for path in places if _is_number(_inside(path))}
            if found:
                return found
        return {}

    def _keys(self, corruption: str, severity: int) -> list[str]:
        levels = _levels(self.folders[corruption])
        if len(levels) != SEVERITIES:
            raise ValueError(
                f"{self.folders[corruption]} has the severities {[each.name for each in levels]}, but five are needed"
            )
        kept = [own for own in _inside(levels[severity - 1]) if own.name in self.labels]
        files = [path for own in kept for path in sorted(own.iterdir()) if path.suffix.lower() in PICTURES]
        if not files:
            raise ValueError(
                f"{levels[severity - 1]} holds no picture ({', '.join(PICTURES)}) of the classes asked for"
            )
        return [f"{path.parent.name}/{path.name}" for path in files]

    def read(self, corruption: str, severity: int, keys: Sequence[str]) -> tuple[Tensor, Tensor]:
        root = _levels(self.folders[corruption])[severity - 1]
        images = [_picture(root / key) for key in keys]
        sizes = sorted({tuple(image.shape[1:]) for image in images})
        if len(sizes) > 1:
            raise ValueError(
                f"pictures in {root} differ in size ({sizes[0]} and {sizes[1]}), but those of a batch may not"
            )
        labels = [self.labels[key.partition("/")[0]] for key in keys]
        return torch.stack(images), torch.tensor(labels)


def _taken(path: Path, labels: Any, rows: list[int]) -> tuple[Tensor, Tensor]:
    """Those rows of an array of images in a file, and of its labels."""
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
    """The folders in a folder, sorted."""
    return sorted(each for each in path.iterdir() if each.is_dir() and not each.name.startswith("."))


def _levels(path: Path) -> list[Path]:
    """The folders of severities, by their numbers: 1 to 5, or any others that grow."""
    return sorted((each for each in _inside(path) if _is_number([each])), key=lambda each: float(each.name))


def _is_number(paths: Sequence[Path]) -> bool:
    """Whether all of at least one path are named by numbers."""
    return bool(paths) and all(path.name.replace(".", "", 1).isdigit() for path in paths)
