"""Steps of the transforms of a loader's data set, and the mean and std of a Normalize among them."""

from types import MethodType
from typing import TypeAlias

import torch
from torch import Tensor, nn

from robusttune.types import Channels, Loader

Statistics: TypeAlias = tuple[Channels, Channels] | tuple[None, None]


def find_statistics(loader: Loader | None) -> Statistics:
    """Return mean and std of a timm loader, or of a Normalize in the data set's transform; (None, None) without either.

    Raises:
        ValueError: the parts of a ConcatDataset are normalised differently.
    """
    mean, std = getattr(loader, "mean", None), getattr(loader, "std", None)
    if isinstance(mean, Tensor) and isinstance(std, Tensor):
        # timm's prefetching loader holds them times 255, with the shape (1,C,1,1).
        return mean.flatten().float().cpu() / 255, std.flatten().float().cpu() / 255
    parts = [_statistics(steps) for steps in _steps_by_part(getattr(loader, "dataset", None))]
    if any(not _same(parts[0], other) for other in parts[1:]):
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
    for step in steps:
        if type(step).__name__ == "Normalize":
            flags = getattr(step, "flags", None) or {}  # where Kornia's augmentation holds its settings
            mean, std = getattr(step, "mean", flags.get("mean")), getattr(step, "std", flags.get("std"))
            if mean is not None and std is not None:
                return mean, std
    return None, None


def _same(one: Statistics, other: Statistics) -> bool:
    if one[0] is None or other[0] is None:
        return one[0] is None and other[0] is None
    (mean, std), (other_mean, other_std) = (
        [torch.as_tensor(values, dtype=torch.float32).flatten() for values in pair] for pair in (one, other)
    )
    return torch.allclose(mean, other_mean) and torch.allclose(std, other_std)
