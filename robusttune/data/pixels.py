"""Which space images are in: pixels on [0,1], where eps is measured, and the model's input."""

import warnings
from types import MethodType
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

SLACK = 1e-3


class PixelArguments(TypedDict):
    """Mean and std of the model's input, (C,) or one number, and whether the loader's images are normalised already."""

    mean: Tensor | None
    std: Tensor | None
    normalized: bool


class Pixels(nn.Module):
    """The maps between a loader's images, pixels on [0,1], and the model's input.

    Args:
        mean, std: of the model's input, one value a channel; None where the model takes pixels.
        normalized: the loader's images are already (pixels - mean) / std.

    Example:
        >>> space = Pixels([0.5], [0.25])
        >>> images = torch.tensor([-2.0, 0.0, 2.0]).reshape(1, 1, 1, 3)
        >>> space.pixels(images).flatten().tolist()
        [0.0, 0.5, 1.0]
        >>> bool(torch.equal(space.inputs(space.pixels(images)), images))
        True
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Any = None, std: Any = None, *, normalized: bool = True) -> None:
        super().__init__()
        if (mean is None) != (std is None):
            raise ValueError("mean and std come together: pass both of your Normalize, or neither")
        self.known = mean is not None
        self.normalized = normalized and self.known
        self.register_buffer("mean", _checked("mean", 0.0 if mean is None else mean), persistent=False)
        self.register_buffer("std", _checked("std", 1.0 if std is None else std), persistent=False)
        if not bool((self.std > 0).all()):
            raise ValueError(f"std is {_rounded(self.std)}, but every value must be above 0")
        if bool((self.mean > 1).any()):
            raise ValueError(
                f"mean is {_rounded(self.mean)}, but it is the mean of pixels on [0, 1]: divide mean and std by 255"
            )

    def pixels(self, images: Tensor) -> Tensor:
        """Pixels (N,C,H,W) on [0,1], fp32, of a loader's images; no gradient is needed here, so rounding is cut off."""
        if images.dtype == torch.uint8:
            return images.float() / 255
        images = images if images.dtype == torch.float64 else images.float()
        return (images * self.std + self.mean if self.normalized else images).clamp(0, 1)

    def arguments(self) -> PixelArguments:
        """The arguments by which RobustLoss and evaluate take this same space."""
        mean, std = (self.mean, self.std) if self.known else (None, None)
        return {"mean": mean, "std": std, "normalized": self.normalized}

    def inputs(self, pixels: Tensor) -> Tensor:
        """The model's input for pixels (N,C,H,W). Nothing is clamped, so saturated pixels keep their gradient."""
        return (pixels - self.mean) / self.std if self.known else pixels

    def __str__(self) -> str:
        if not self.known:
            return "images are pixels on [0, 1], and so is the model's input"
        given = "normalised images" if self.normalized else "pixels, which are normalised before the model"
        return f"images are {given} (mean={_rounded(self.mean)}, std={_rounded(self.std)})"


def find_pixels(
    images: Tensor,
    loader: Any = None,
    *,
    mean: Any = None,
    std: Any = None,
    normalized: bool | None = None,
    model: nn.Module | None = None,
) -> Pixels:
    """The space of a loader's images, judged by the first batch (N,C,H,W).

    mean and std are the arguments; else a timm loader's own; else those of a Normalize in the data set's transform;
    else none. With them known, images are taken as normalised unless all values lie in [0,1].

    Raises:
        ValueError: values that no choice explains.
    """
    if mean is None and std is None:
        mean, std = found_statistics(loader)
    images = images.detach().cpu()  # as mean and std are; some loaders yield images on the accelerator
    low, high = float(images.min()), float(images.max())
    inside = low >= -SLACK and high <= 1 + SLACK
    if normalized and mean is None and std is None:
        raise ValueError("normalized=True, but no mean and std were given or found: pass mean=… and std=… too")
    if images.dtype == torch.uint8:
        if normalized:
            raise ValueError("normalized=True, but images are uint8, which are pixels: leave normalized out")
        normalized = False
    elif normalized is None:
        normalized = not inside
    space = Pixels(mean, std, normalized=normalized)
    if space.known:
        _check_channels(space, images)
        _compare_with_config(space, model)
    _check_range(space, images, (low, high))
    return space


def check_later(space: Pixels, images: Tensor) -> None:
    """Raise a ValueError for images (N,C,H,W) of a later batch that cannot be in the space found for the first."""
    if space.normalized or images.dtype == torch.uint8:
        return
    images = images.detach()
    low, high = float(images.min()), float(images.max())
    if space.known and (low < -SLACK or high > 1 + SLACK):
        raise ValueError(
            f"images span [{low:.2f}, {high:.2f}], but those of the first batch lay within [0, 1] and were taken for "
            "pixels: pass normalized=True if images are normalised"
        )
    _check_range(space, images, (low, high))


def found_statistics(loader: Any) -> tuple[Any, Any]:
    """mean and std of a timm loader or of a Normalize in the data set's transform; (None, None) if there are none.

    Raises:
        ValueError: the parts of a ConcatDataset normalise differently.
    """
    if isinstance(getattr(loader, "mean", None), Tensor) and isinstance(getattr(loader, "std", None), Tensor):
        # timm's prefetching loader holds them times 255, with the shape (1,C,1,1).
        return loader.mean.flatten().float().cpu() / 255, loader.std.flatten().float().cpu() / 255
    found = [_statistics(transforms) for transforms in _transforms(getattr(loader, "dataset", None))]
    if any(not _same(found[0], other) for other in found[1:]):
        told = ", ".join("no Normalize" if mean is None else f"mean={mean}, std={std}" for mean, std in found)
        raise ValueError(
            f"the parts of the data set are normalised differently ({told}): give all of them the same Normalize, or pass "
            "mean=… and std=… if all are in one space"
        )
    return found[0] if found else (None, None)


def transforms_of(loader: Any) -> list[Any]:
    """The steps of the transforms of a loader's data set, as far as they can be seen, in order."""
    return [step for transforms in _transforms(getattr(loader, "dataset", None)) for step in transforms]


def _transforms(dataset: Any) -> list[list[Any]]:
    """The steps of the transforms of each part of a data set, those of what it wraps first."""
    if dataset is None:
        return []
    parts = getattr(dataset, "datasets", None)
    parts = parts if isinstance(parts, list | tuple) else [getattr(dataset, "dataset", None)]
    inner = [steps for part in parts for steps in _transforms(part)]
    own = _flat(_own_transform(dataset))
    return [[*steps, *own] for steps in inner] if inner else [own] * bool(own)


def _statistics(steps: list[Any]) -> tuple[Any, Any]:
    for step in steps:
        if type(step).__name__ == "Normalize":
            flags = getattr(step, "flags", None) or {}  # where Kornia's augmentation holds its settings
            mean, std = getattr(step, "mean", flags.get("mean")), getattr(step, "std", flags.get("std"))
            if mean is not None and std is not None:
                return mean, std
    return None, None


def _same(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    if one[0] is None or other[0] is None:
        return one[0] is None and other[0] is None
    return all(torch.allclose(_column(a), _column(b)) for a, b in zip(one, other, strict=True))


def _own_transform(dataset: Any) -> Any:
    return getattr(dataset, "transform", None) or getattr(dataset, "transforms", None)


def _flat(transform: Any) -> list[Any]:
    if transform is None:
        return []
    inner = getattr(transform, "transforms", None)
    if isinstance(transform, list | tuple | nn.Sequential):
        inner = list(transform)
    elif inner is None and not isinstance(getattr(transform, "transform", None), MethodType | None):
        inner = [transform.transform]
    if isinstance(inner, list | tuple | nn.ModuleList):
        steps = [step for each in inner for step in _flat(each)]
        # The container says that it draws at random (RandomApply, RandomChoice) where its members need not.
        return [transform, *steps] if steps and not isinstance(transform, list | tuple) else steps
    return [transform]


def _check_channels(space: Pixels, images: Tensor) -> None:
    channels = images.shape[1]
    if space.mean.numel() not in (1, channels) or space.std.numel() not in (1, channels):
        raise ValueError(
            f"mean and std have {space.mean.numel()} and {space.std.numel()} values, but images have {channels} "
            f"channel{'s' * (channels > 1)}: pass one of each for each channel"
        )


def _check_range(space: Pixels, images: Tensor, span: tuple[float, float]) -> None:
    low, high = span
    shown = f"images span [{low:.2f}, {high:.2f}]"
    if space.normalized:
        # Random erasing of normalised images leaves the box, so single values may; whole images may not.
        pixels = images * space.std + space.mean
        outside = float(((pixels < -0.02) | (pixels > 1.02)).float().mean())
        if outside > 0.01:
            raise ValueError(
                f"{shown}, and with {space} {outside:.0%} of the pixels fall outside [0, 1]: pass the mean=… and "
                "std=… of your Normalize, or normalized=False if images are pixels"
            )
    elif images.dtype != torch.uint8 and (low < -SLACK or high > 1 + SLACK):
        if low >= 0 and high > 10:
            raise ValueError(f"{shown}, but eps is in pixel units on [0, 1]: divide float images by 255, or give uint8")
        raise ValueError(f"{shown}, but eps is in pixel units on [0, 1]: pass mean=… and std=… of your Normalize")


def _compare_with_config(space: Pixels, model: nn.Module | None) -> None:
    config = getattr(model, "pretrained_cfg", None) or {}
    for key, mine in (("mean", space.mean), ("std", space.std)):
        theirs = config.get(key) if isinstance(config, dict) else None
        if theirs is not None and len(theirs) == mine.numel() and not torch.allclose(_column(theirs), mine, atol=1e-3):
            warnings.warn(
                f"{key} is {_rounded(mine)}, but the model's pretrained_cfg says {tuple(theirs)}: if its weights are "
                "pre-trained, normalise as they were trained",
                stacklevel=4,
            )
            return


def _checked(name: str, values: Any) -> Tensor:
    try:
        column = _column(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name} is {values!r}, but a number for each channel is needed, such as (0.5, 0.5, 0.5)"
        ) from error
    if not bool(torch.isfinite(column).all()):
        raise ValueError(f"{name} is {_rounded(column)}, but finite numbers are needed, one for each channel")
    return column


def _column(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32).detach().clone().reshape(1, -1, 1, 1)


def _rounded(values: Tensor) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values.flatten().tolist()) + ")"
