"""Steps of the transforms of a loader's data set, and the mean and std of a Normalize among them."""

import copy
from types import MethodType
from typing import TypeAlias

import torch
from torch import Tensor, nn

from robusttune.types import Channels, Loader

Statistics: TypeAlias = tuple[Channels, Channels] | tuple[None, None]


def find_statistics(loader: Loader | None) -> Statistics:
    """Return mean and std of a timm loader, or of a Normalize in the data set's transform; (None, None) without either.

    They are in units of pixels on [0,1]. A Normalize that brings raw values to [0,1] (mean 0, std 255 or 65535) does not
    count, and several in a row count as the one that does the same.

    Raises:
        ValueError: the parts of a ConcatDataset are normalised differently, or a Normalize uses each image's own values.
    """
    mean, std = getattr(loader, "mean", None), getattr(loader, "std", None)
    if isinstance(mean, Tensor) and isinstance(std, Tensor):
        # timm's prefetching loader holds them times 255, with the shape (1,C,1,1).
        return mean.flatten().float().cpu() / 255, std.flatten().float().cpu() / 255
    parts = [_statistics(steps) for steps in _steps_by_part(getattr(loader, "dataset", None))]
    if any(not same_statistics(parts[0], other) for other in parts[1:]):
        shown = ", ".join("no Normalize" if mean is None else f"mean={mean}, std={std}" for mean, std in parts)
        raise ValueError(
            f"the parts of the data set are normalised differently ({shown}): give all of them the same Normalize, or pass "
            "mean=… and std=… if all are in one space"
        )
    return parts[0] if parts else (None, None)


def transforms_of(loader: Loader | None) -> list[object]:
    """List the steps of the transforms of a loader's data set and of what it wraps, in order, innermost first.

    A data set's transform is read from its attribute `transform` or `transforms`. Containers such as Compose are listed
    before their steps.
    """
    return [step for steps in _steps_by_part(getattr(loader, "dataset", None)) for step in steps]


def _steps_by_part(dataset: object) -> list[list[object]]:
    """List the steps for each part of a ConcatDataset, for any other data set once; those of what it wraps come first."""
    if dataset is None:
        return []
    parts = getattr(dataset, "datasets", None)
    parts = parts if isinstance(parts, list | tuple) else [getattr(dataset, "dataset", None)]
    inner = [steps for part in parts for steps in _steps_by_part(part)]
    outer = _flat(getattr(dataset, "transform", None) or getattr(dataset, "transforms", None))
    return [[*steps, *outer] for steps in inner] if inner else [outer] * bool(outer)


def _flat(transform: object) -> list[object]:
    """List a transform, or a container and its steps."""
    if transform is None:
        return []
    inner = getattr(transform, "transforms", None)
    if isinstance(transform, list | tuple | nn.Sequential):
        inner = list(transform)
    elif inner is None and not isinstance(wrapped := getattr(transform, "transform", None), MethodType | None):
        inner = [wrapped]
    if isinstance(inner, list | tuple | nn.ModuleList):
        steps = [step for part in inner for step in _flat(part)]
        # The container's name says that it is random (RandomApply, RandomChoice) where those of its steps need not.
        return [transform, *steps] if steps and not isinstance(transform, list | tuple) else steps
    return [transform]


def _statistics(steps: list[object]) -> Statistics:
    """Return mean and std of the steps named Normalize, together."""
    together: Statistics = None, None
    for step in steps:
        found = _normalisation(step) if type(step).__name__ == "Normalize" else None
        if found is None:
            continue
        if together[0] is not None:
            (mean, std), (next_mean, next_std) = (map(_numbers, pair) for pair in (together, found))
            together = mean + std * next_mean, std * next_std
        elif not (bool((_numbers(found[0]) == 0).all()) and bool((_numbers(found[1]) > 1).all())):
            together = found
    return together


def _normalisation(step: object) -> tuple[Channels, Channels] | None:
    """Return mean and std of one step; None if it has none, or only stretches each image to [0,1].

    Raises:
        ValueError: the step does something else than to subtract its mean and divide by its std.
    """
    flags = getattr(step, "flags", None) or {}  # where Kornia's augmentation holds its settings
    mean, std = getattr(step, "mean", flags.get("mean")), getattr(step, "std", flags.get("std"))
    way = str(getattr(step, "normalization", "standard"))  # albumentations'
    missing = mean is None or std is None
    if way.startswith("min_max") or (missing and way == "standard"):
        return None
    if mean is None or std is None or way != "standard" or not _subtracts_and_divides(step, mean, std):
        raise ValueError(
            f"{type(step).__module__}.{type(step).__name__} in the transform normalises each image by its own values, so "
            "eps has no meaning in pixels on [0, 1]: let the loader yield pixels, and normalise them in the model"
        )
    return mean, std


def _subtracts_and_divides(step: object, mean: Channels, std: Channels) -> bool:
    """Return False if a step turns an image into something else than (image - mean) / std; True if it takes no tensor."""
    means, stds = _numbers(mean)[:, None, None], _numbers(std)[:, None, None]
    channels = max(len(means), len(stds))
    image = torch.linspace(0.1, 0.9, 4 * channels).reshape(channels, 2, 2)
    try:
        with torch.no_grad():
            returned = copied(image.clone()) if callable(copied := copy.deepcopy(step)) else None
    except Exception:  # whatever a step raises that takes PIL images or arrays
        return True
    if not isinstance(returned, Tensor) or returned.numel() != image.numel():
        return True
    return torch.allclose(returned.float().reshape(image.shape), (image - means) / stds, rtol=1e-3, atol=1e-4)


def _numbers(values: Channels) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32).flatten().cpu()


def same_statistics(one: Statistics, other: Statistics) -> bool:
    """Return True if two pairs of mean and std are the same."""
    if one[0] is None or other[0] is None:
        return one[0] is None and other[0] is None
    (mean, std), (other_mean, other_std) = (map(_numbers, pair) for pair in (one, other))
    return torch.allclose(mean, other_mean) and torch.allclose(std, other_std)
