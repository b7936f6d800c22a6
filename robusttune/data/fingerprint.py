"""Fingerprint of training images: it tells a run or a trial that goes on whether it has the images that it began with."""

import os
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, SubsetRandomSampler, TensorDataset

from robusttune.data.loaders import length_of
from robusttune.run.provenance import digest, of_all, tensor_bytes
from robusttune.types import Loader

Rows: TypeAlias = NDArray[np.int64]
Foreign: TypeAlias = Any  # a part of whatever loader or data set a user has

# What data sets call their files with labels, their files alone, their labels, and their images in memory.
SAMPLES, PATHS = ("samples", "imgs", "_samples"), ("_image_files",)
LABELS, IMAGES = ("targets", "labels", "_labels"), ("data", "images")
SOME = 256  # images, evenly spaced, whose values or whose files' sizes are hashed
MOST = 2**28  # bytes of batches in a list that are hashed


def fingerprint_of(loader: Loader | None) -> str | None:
    """Hash what a loader's data set holds of its images; None where it shows nothing.

    These are labels, the names of files below the folder that they have in common, and of some images the size of the file or the
    values in memory. No image is read for it: transforms play no part, no random number is drawn, and the folder may move.
    """
    try:
        parts = list(_of_loader(loader))
    except (
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        RuntimeError,
        OverflowError,
    ):  # a data set of another kind
        return None
    return digest(part.encode() for part in parts) if parts else None


def _of_loader(loader: Foreign) -> Iterator[str]:
    if type(loader) in (list, tuple):  # others may yield anything
        yield from _of_batches(loader)
        return
    joined, dataset = getattr(loader, "loaders", None), getattr(loader, "dataset", None)
    count, sampler = length_of(dataset), getattr(loader, "sampler", None)
    if joined is not None:  # images with and without labels
        yield from filter(None, map(fingerprint_of, joined))
    elif isinstance(sampler, SubsetRandomSampler):
        yield from _of_rows(dataset, np.sort(_numbers(sampler.indices)))
    elif count is not None:
        yield from _of_rows(dataset, np.arange(count))


def _of_batches(batches: Sequence[Foreign]) -> Iterator[str]:
    """Hash the images in a list of batches, in whatever order they are; none where they are too large."""
    values = [[each for each in _values_in(batch) if isinstance(each, Tensor)] for batch in batches]
    if not any(values) or sum(each.numel() * each.element_size() for batch in values for each in batch) > MOST:
        return
    yield of_all(digest(map(tensor_bytes, row)) for batch in values for row in zip(*batch, strict=True))


def _values_in(batch: Foreign) -> Sequence[object]:
    if isinstance(batch, Tensor):
        return [batch]
    return [batch[key] for key in sorted(batch)] if isinstance(batch, dict) else list(batch)


def _of_rows(dataset: Foreign, rows: Rows) -> Iterator[str]:
    """Hash what a data set, or one inside of it, holds of these images."""
    if isinstance(dataset, Subset):
        yield from _of_rows(dataset.dataset, _numbers(dataset.indices)[rows])
    elif isinstance(dataset, ConcatDataset):
        ends = dataset.cumulative_sizes
        parts = np.searchsorted(ends, rows, side="right")
        for number, (begin, part) in enumerate(zip([0, *ends], dataset.datasets, strict=False)):
            yield from _of_rows(part, rows[parts == number] - begin)
    else:
        held = list(_held(dataset, rows))
        inner = getattr(dataset, "dataset", None)
        if not held and inner is not None and inner is not dataset and length_of(inner) == length_of(dataset):
            held = list(_of_rows(inner, rows))
        yield from held


def _held(dataset: Foreign, rows: Rows) -> Iterator[str]:
    """Hash the files, images in memory and labels of a data set that wraps no other."""
    if isinstance(dataset, TensorDataset):
        yield from (_of_values(each, rows) for each in dataset.tensors)
        return
    samples, paths, images, labels = (_sized(dataset, names) for names in (SAMPLES, PATHS, IMAGES, LABELS))
    if samples is not None:
        paths, labels = [path for path, *_ in samples], [label for _, label, *_ in samples]
    if paths is not None:
        yield _of_files([os.fspath(paths[row]) for row in rows])
    elif isinstance(images, Tensor | np.ndarray):
        yield _of_values(images, rows)
    if labels is not None:
        yield _of_values(labels if isinstance(labels, Tensor) else np.asarray(labels), rows)


def _sized(dataset: Foreign, names: Sequence[str]) -> Foreign:
    """Return the first of these attributes that holds something for each image; None where there is none."""
    for place in (dataset, getattr(dataset, "reader", None)):  # where timm has them
        for name in names:
            value = getattr(place, name, None)
            if isinstance(value, list | tuple | Tensor | np.ndarray) and len(value) == length_of(dataset):
                return value
    return None


def _of_files(paths: list[str]) -> str:
    """Hash the names of files, and the sizes of some."""
    low, high = min(paths, default=""), max(paths, default="")
    differ = next((place for place, pair in enumerate(zip(low, high, strict=False)) if len({*pair}) > 1), len(low))
    begin = low.rfind(os.sep, 0, differ) + 1  # of the part below the folder that all have in common
    names = [path[begin:].replace(os.sep, "/") for path in paths]
    sizes = [str(_size(paths[row])) for row in _some(np.arange(len(paths)))]
    return digest(text.encode(errors="surrogatepass") + b"\0" for text in [*names, *sizes])


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):  # of a file in an archive
        return None


def _of_values(values: Tensor | NDArray[Foreign], rows: Rows) -> str:
    """Hash labels, or some of the images, in memory."""
    chosen = rows if values.ndim == 1 else _some(rows)
    picked = values[torch.from_numpy(chosen).to(values.device)] if isinstance(values, Tensor) else values[chosen]
    if picked.ndim > 1:
        return digest([str(tuple(picked.shape)).encode(), tensor_bytes(torch.as_tensor(picked))])
    return digest(f"{label}\0".encode() for label in picked.tolist())  # the same in any type


def _some(rows: Rows) -> Rows:
    return rows if len(rows) <= SOME else rows[np.linspace(0, len(rows) - 1, SOME).astype(np.int64)]


def _numbers(values: Foreign) -> Rows:
    return np.array([int(each) for each in values], dtype=np.int64)
