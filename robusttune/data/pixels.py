"""Pixel spaces: the loader's images, pixels on [0,1], in which eps is measured, and the model's input."""

import warnings
from typing import TypedDict

import torch
from torch import Tensor, nn

from robusttune.data.transforms import find_statistics
from robusttune.types import Channels, Loader, check_flag, shown

SLACK = 1e-3  # pixels may leave [0,1] by that much through rounding
OVERSHOOT = 0.25  # and by that much through bicubic resizing
LARGEST_STD = 2  # the std of pixels on [0,1] is 0.5 at most; a larger one is in units of raw values
MOST_CHANNELS = 1024
FAINT = 1.001 / 255  # no brighter than one of 255 levels
OTHER_SPACE = 0.25  # share of later images' values outside [0,1]; erased rectangles leave fewer


class PixelArguments(TypedDict):
    """Arguments of RobustLoss and evaluate: mean and std of the model's input; `normalized`: the loader applies them."""

    mean: Tensor | None
    std: Tensor | None
    normalized: bool


class Pixels(nn.Module):
    """Conversion of a loader's images to pixels on [0,1], and of pixels to the model's input, (pixels - mean) / std.

    Args:
        mean, std: one number for each channel, or one for all; None for a model that takes pixels.
        normalized: the loader's images are (pixels - mean) / std already.

    Attributes:
        known: mean and std are known; else images, pixels and the model's input are the same.
        assumed: True if images were assumed to be normalised before any was seen; the first batch then decides, see `settle`.
        seen: values of a loader's images have been checked, if only those of its first batch.

    Raises:
        ValueError: one of mean and std without the other, or values that no Normalize has.

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

    def __init__(self, mean: Channels | None = None, std: Channels | None = None, *, normalized: bool = True) -> None:
        super().__init__()
        if (mean is None) != (std is None):
            raise ValueError("mean and std come together: pass both of your Normalize, or neither")
        self.known = mean is not None
        self.normalized = normalized and self.known
        self.assumed = self.seen = False
        self.register_buffer("mean", _checked("mean", 0.0 if mean is None else mean), persistent=False)
        self.register_buffer("std", _checked("std", 1.0 if std is None else std), persistent=False)
        if not bool((self.std > 0).all()):
            raise ValueError(f"std is {rounded(self.std)}, but every value must be above 0")
        for name, values, most in (("mean", self.mean, 1), ("std", self.std, LARGEST_STD)):
            if bool((values > most).any()):
                raise ValueError(
                    f"{name} is {rounded(values)}, but it is the {name} of pixels on [0, 1]: divide mean and std by 255, or "
                    "by 65535 for 16-bit images; leave out a Normalize that only brings images to [0, 1]"
                )

    def pixels(self, images: Tensor) -> Tensor:
        """Convert a loader's images to pixels (N,C,H,W) on [0,1], fp32 or fp64, clamped against rounding errors."""
        if images.dtype == torch.uint8:
            return images.float() / 255
        images = images if images.dtype == torch.float64 else images.float()
        return (images * self.std + self.mean if self.normalized else images).clamp(0, 1)

    def arguments(self) -> PixelArguments:
        """Return the arguments with which RobustLoss and evaluate use this same space."""
        mean, std = (self.mean, self.std) if self.known else (None, None)
        return {"mean": mean, "std": std, "normalized": self.normalized}

    def inputs(self, pixels: Tensor) -> Tensor:
        """Convert pixels (N,C,H,W) to the model's input; nothing is clamped, so saturated pixels keep their gradient.

        The result is always a copy, as some models write into their input.
        """
        return (pixels - self.mean) / self.std if self.known else pixels.clone()

    def __str__(self) -> str:
        if not self.known:
            return "images are pixels on [0, 1], and so is the model's input"
        images = "normalised images" if self.normalized else "pixels, which are normalised before the model"
        return f"images are {images} (mean={rounded(self.mean)}, std={rounded(self.std)})"


def find_pixels(
    images: Tensor,
    loader: Loader | None = None,
    *,
    mean: Channels | None = None,
    std: Channels | None = None,
    normalized: bool | None = None,
    model: nn.Module | None = None,
) -> Pixels:
    """Find out the space of a loader's images from its first batch (N,C,H,W).

    mean and std are those of the arguments; without them, those of a timm loader; without these, those of a Normalize in
    the data set's transform. If there are none, images must be pixels.

    Args:
        images: the first batch.
        loader: asked for mean and std.
        mean, std: as in `Pixels`.
        normalized: the loader's images are normalised; None: they are, unless all values of the first batch lie in [0,1].
        model: a warning is given if its `pretrained_cfg` (of timm) has another mean or std, or if pixels are nearly black;
            None for no warning.

    Raises:
        ValueError: the images do not fit to the arguments, or cannot be pixels although mean and std are unknown.
    """
    if normalized is not None:
        check_flag("normalized", normalized, none=True)
    given = mean is not None
    if mean is None and std is None:
        mean, std = find_statistics(loader)
    images = images.detach().cpu()  # as mean and std are; some loaders yield images on the accelerator
    low, high = float(images.min()), float(images.max())
    inside = low >= -SLACK and high <= 1 + SLACK
    if normalized and mean is None and std is None:
        raise ValueError("normalized=True, but mean and std are unknown: pass mean=… and std=… too")
    if images.dtype == torch.uint8:
        if normalized:
            raise ValueError("normalized=True, but images are uint8, which are pixels: leave normalized out")
        normalized = False
    elif normalized is None:
        normalized = not inside
        if given and not inside and _overshoots(low, high):
            raise ValueError(
                f"images span [{low:.2f}, {high:.2f}], which may be pixels that leave [0, 1] a little, as bicubic resizing "
                "does, or normalised images: clamp the pixels to [0, 1], or pass normalized=True"
            )
    space = Pixels(mean, std, normalized=normalized)
    if space.known:
        _check_channels(space, images)
        _compare_with_config(space, model)
    _check_range(space, images, (low, high))
    if model is not None and not space.normalized:
        _warn_if_faint(images, high)
    return space


def settle(space: Pixels, images: Tensor) -> None:
    """Decide by a loader's first batch (N,C,H,W) whether its images are normalised, where that was assumed; as `find_pixels` does.

    Raises:
        ValueError: as `find_pixels`.
    """
    if space.assumed:
        space.normalized = find_pixels(images, mean=space.mean.cpu(), std=space.std.cpu()).normalized
        space.assumed = False


def check_space(space: Pixels, images: Tensor) -> None:
    """Raise a ValueError if images (N,C,H,W) of a later batch cannot be in the space of the first batch."""
    if images.dtype == torch.uint8:
        return
    images = images.detach()
    if space.normalized:
        _check_outside(space, images, most=OTHER_SPACE)
        return
    low, high = float(images.min()), float(images.max())
    if space.known and (low < -SLACK or high > 1 + SLACK) and not _overshoots(low, high):
        raise ValueError(
            f"images span [{low:.2f}, {high:.2f}], but those of the first batch lay within [0, 1] and were taken for "
            "pixels: pass normalized=True if images are normalised"
        )
    _check_range(space, images, (low, high))


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
        # Random erasing of normalised images puts single values outside [0,1], so 1% of them may be.
        _check_outside(space, images, most=0.01)
    elif images.dtype != torch.uint8 and (low < -SLACK or high > 1 + SLACK):
        advice = "pass mean=… and std=… of your Normalize"
        if _overshoots(low, high):
            advice = f"clamp them to [0, 1], which bicubic resizing leaves; or, if they are normalised, {advice}"
        elif low >= 0 and high > 255.5:
            advice = "divide them by the value of white, such as 65535 for 16-bit images"
        elif low >= 0 and high > 10:
            advice = "divide float images by 255, or pass uint8"
        raise ValueError(f"{shown}, but eps is in pixel units on [0, 1]: {advice}")


def _warn_if_faint(images: Tensor, high: float) -> None:
    """Warn of pixels that are all 0 or 1 of 255 levels, and not all black."""
    advice = "were they divided by 255 twice? Divide once"
    if images.dtype == torch.uint8:
        high, advice = (
            high / 255,
            "were pixels on [0, 1] cast to uint8? Multiply them by 255 before, or leave them floats",
        )
    if 0 < high <= FAINT:
        warnings.warn(
            f"images span [0, {high:.4f}] on a scale from black (0) to white (1), less than any eps that is usual: {advice}",
            stacklevel=4,
        )


def _check_outside(space: Pixels, images: Tensor, *, most: float) -> None:
    """Raise a ValueError if more than this share of normalised images' values fall outside [0,1] as pixels."""
    pixels = images * space.std.to(images.device) + space.mean.to(images.device)
    outside = float(((pixels < -0.02) | (pixels > 1.02)).float().mean())
    if outside > most:
        low, high = float(images.min()), float(images.max())
        advice = "pass the mean=… and std=… of your Normalize, or normalized=False if images are pixels"
        if _overshoots(float(pixels.min()), float(pixels.max())):
            advice = f"clamp images to [0, 1] before Normalize, as bicubic resizing leaves it; or {advice}"
        raise ValueError(
            f"images span [{low:.2f}, {high:.2f}], and with {space} {outside:.0%} of the pixels fall outside [0, 1]: {advice}"
        )


def _overshoots(low: float, high: float) -> bool:
    """Return True if values span little more than [0,1], as after bicubic resizing."""
    return low >= -OVERSHOOT and high <= 1 + OVERSHOOT


def _compare_with_config(space: Pixels, model: nn.Module | None) -> None:
    config = getattr(model, "pretrained_cfg", None) or {}
    for key, mine in (("mean", space.mean), ("std", space.std)):
        theirs = config.get(key) if isinstance(config, dict) else None
        if theirs is not None and len(theirs) == mine.numel() and not torch.allclose(_column(theirs), mine, atol=1e-3):
            warnings.warn(
                f"{key} is {rounded(mine)}, but the model's pretrained_cfg says {tuple(theirs)}: if its weights are "
                "pre-trained, normalise as they were trained",
                stacklevel=4,
            )
            return


def _checked(name: str, values: Channels) -> Tensor:
    """Return mean or std as (1,C,1,1); raise a ValueError unless they are finite numbers."""
    try:
        column = _column(values)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(
            f"{name} is {shown(values)}, but a number for each channel is needed, such as (0.5, 0.5, 0.5)"
        ) from error
    if column.is_meta or column.numel() > MOST_CHANNELS:
        raise ValueError(f"{name} is {shown(values)}, but one number for each channel is needed")
    if not bool(torch.isfinite(column).all()):
        raise ValueError(f"{name} is {rounded(column)}, but finite numbers are needed, one for each channel")
    return column


def _column(values: Channels) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32).detach().clone().reshape(1, -1, 1, 1)


def rounded(values: Channels) -> str:
    """Write a mean or std for people.

    Example:
        >>> rounded([0.485, 0.1 + 0.2])
        '(0.485, 0.3)'
    """
    return "(" + ", ".join(f"{value:.4g}" for value in torch.as_tensor(values).flatten().tolist()) + ")"


def normalised(mean: Channels | None, std: Channels | None) -> str:
    """Write the values of a model's input for people, from the mean and std of its Normalize; None for pixels.

    Example:
        >>> normalised([0.485, 0.456], [0.229, 0.224])
        'images normalised with mean=(0.485, 0.456) and std=(0.229, 0.224)'
        >>> normalised(None, None)
        'pixels on [0, 1]'
    """
    if mean is None or std is None:
        return "pixels on [0, 1]"
    return f"images normalised with mean={rounded(mean)} and std={rounded(std)}"
