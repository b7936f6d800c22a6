"""Batches of a user's loader, read as images and labels and checked."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import GeneratorType
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor

from robusttune.data.loaders import batches_of
from robusttune.types import Loader

IMAGE_KEYS = ("pixel_values", "images", "image", "img", "inputs", "x")
LABEL_KEYS = ("labels", "label", "targets", "target", "y")

logger = logging.getLogger("robusttune")


def first_batch(loader: Loader, name: str = "loader") -> object:
    """Return the first batch of a loader, unchecked and in the form in which the loader yields it.

    Raises:
        ValueError: the loader is empty, or gives one generator again and again, of which the first batch would be gone.
    """
    batches = iter(loader)
    if isinstance(batches, GeneratorType) and batches is not loader and iter(loader) is batches:
        raise ValueError(
            f"the {name} is a {type(loader).__name__} that gives the same generator each time, so that its batches come only "
            "once, but the first is needed beforehand: let its __iter__ begin a new generator, or pass a list of batches"
        )
    batch = next(batches, None)
    if batch is None:
        raise ValueError(f"the {name} is empty: check the data set's length, the sampler and drop_last")
    if isinstance(batch, tuple | list) and len(batch) > 2:
        logger.info("batches have %d items: the first two are taken as images and labels", len(batch))
    return batch


def unpacked(batch: object, *, wait: bool = True) -> tuple[Tensor, Tensor]:
    """Read images (N,C,H,W) and labels, (N,) or soft (N,K), from one batch of a user's loader.

    A batch is a pair, a longer tuple, of which the first two items count, or a dict with keys such as "pixel_values" and
    "labels". Images must be finite floats or uint8, labels class numbers or distributions over the classes.

    Args:
        wait: check values on an accelerator, too, which waits for all work that is queued there.

    Raises:
        ValueError: a batch of another form, or values that are not allowed.
    """
    if _has_keys(batch):
        images, labels = _of_first_key(batch, IMAGE_KEYS, "images"), _of_first_key(batch, LABEL_KEYS, "labels")
    elif isinstance(batch, tuple | list) and len(batch) >= 2:
        images, labels = batch[0], batch[1]
    else:
        raise ValueError(f"the loader yields {_kind(batch)}, but (images, labels) or a dict of both is needed")
    check_images(images, wait=wait)
    return images, checked_labels(labels, len(images), wait=wait)


def images_of(batch: object, *, wait: bool = True) -> Tensor:
    """Read the images (N,C,H,W) of one batch: a tensor, a tuple whose first item is one, or a dict.

    Args:
        wait: as in `unpacked`.

    Raises:
        ValueError: a batch of another form, or values that are not allowed.
    """
    images = _of_first_key(batch, IMAGE_KEYS, "images") if _has_keys(batch) else batch
    images = images[0] if isinstance(images, tuple | list) and images else images
    check_images(images, wait=wait)
    return cast(Tensor, images)


def are_images_alone(batch: object) -> bool:
    """Return True for a batch without labels: a tensor, a tuple of one item, or a dict with nothing but images.

    A dict with other keys may hold labels under a name that is not known, so that it is not taken for one.
    """
    if _has_keys(batch):
        return all(key in IMAGE_KEYS for key in batch)
    return isinstance(batch, Tensor) or (isinstance(batch, tuple | list) and len(batch) == 1)


def yields_images_alone(loader: Loader, first: object) -> bool:
    """Return True if the batches of a loader hold images alone, by the first; a pair of images and labels is no loader."""
    pair = isinstance(loader, tuple | list) and len(loader) == 2
    shapes = [getattr(batch, "ndim", None) for batch in loader] if pair else [4]
    return are_images_alone(first) and shapes.count(4) == len(shapes)


def check_images(images: object, *, wait: bool = False) -> None:
    """Raise a ValueError unless images are a finite tensor (N,C,H,W) of floats or uint8; `wait` as in `unpacked`."""
    if not isinstance(images, Tensor):
        raise ValueError(f"images are {_kind(images)}, but a tensor is needed: add ToTensor to the transform")
    check_dense("images", images, wait=wait)
    shape = tuple(images.shape)
    if len(shape) != 4:
        hint = ": are these single images? Wrap the data set in a DataLoader" if len(shape) == 3 else ""
        raise ValueError(f"images have shape {shape}, but (N, C, H, W) is needed{hint}")
    if 0 in shape:
        raise ValueError(f"images have shape {shape}: the batch has no images, or they have no pixels")
    if _channels_last(shape):
        raise ValueError(f"images have shape {shape}, which looks like (N, H, W, C): permute them to (N, C, H, W)")
    if images.dtype.itemsize < 2 and images.is_floating_point():
        raise ValueError(f"images are {images.dtype}, which cannot be computed with: call .half() or .float()")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        advice = (
            "take .abs() or .real"
            if images.is_complex()
            else "call .float(), and divide by the value of white: 255, or 65535 for 16-bit images"
        )
        raise ValueError(f"images are {images.dtype}, but floats or uint8 are needed: {advice}")
    readable = images.is_floating_point() and (wait or images.device.type == "cpu")
    if readable and not bool(torch.stack(torch.aminmax(images.detach())).isfinite().all()):  # a NaN makes both NaN
        raise ValueError("images hold NaN or infinite values: look for broken files or a division by zero std")


def check_dense(name: str, values: Tensor, *, wait: bool = True) -> None:
    """Raise a ValueError for tensors of a layout that cannot be computed with, or, with `wait`, without values."""
    kind = "nested" if values.is_nested else "quantised" if values.is_quantized else ""
    if not kind and values.layout != torch.strided:
        kind = f"of layout {values.layout}"
    if kind:
        advice = "call .dequantize()" if values.is_quantized else "make them dense, as by .to_dense() or torch.stack"
        raise ValueError(f"{name} are a tensor that is {kind}, but a dense one is needed: {advice}")
    if wait and values.is_meta:
        raise ValueError(f"{name} are on the meta device, so they have no values: load them on a real device")


def check_channels(images: Tensor, channels: int | None) -> None:
    """Raise a ValueError unless images (N,C,H,W) have this number of channels; with None, any number is allowed."""
    if channels is not None and images.shape[1] != channels:
        raise ValueError(
            f"images have {images.shape[1]} channels, but those before them had {channels}: convert all of them alike, as "
            'with image.convert("RGB")'
        )


def checked_labels(labels: object, count: int, *, wait: bool = False) -> Tensor:
    """Return the labels of `count` images as int64 class numbers (N,) or float distributions (N,K).

    Args:
        wait: as in `unpacked`.

    Raises:
        ValueError: another number of labels, floats that are no distributions, or several classes for an image.
    """
    values = _tensor(labels)
    check_dense("labels", values, wait=wait)
    if len(values.shape) == 0 or len(values) != count:
        raise ValueError(
            f"there are {count} images but labels of shape {tuple(values.shape)}: one label for each is needed"
        )
    if values.dim() == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dim() == 1:
        if values.is_floating_point() or values.is_complex():
            raise ValueError(
                f"labels are {values.dtype} of shape {tuple(values.shape)}, but class numbers are integers: call .long()"
            )
        return values.long()
    if values.dim() != 2:
        raise ValueError(
            f"labels have shape {tuple(values.shape)}, but (N,) or (N, classes) is needed: masks and boxes cannot be used"
        )
    if wait or values.device.type == "cpu":
        _check_distributions(values)
    return values.float()


def check_classes(labels: Tensor, classes: int) -> None:
    """Raise a ValueError unless labels (N,) lie from 0 to classes - 1, or soft ones (N,K) have as many columns as classes."""
    if labels.dim() == 2:
        if labels.shape[1] != classes:
            raise ValueError(
                f"soft labels have {labels.shape[1]} columns, but the model has {classes} classes: give them one column for each class"
            )
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise ValueError(f"label {wrong} is out of range: the model has {classes} classes, numbered 0 to {classes - 1}")


def hard_labels(labels: Tensor) -> Tensor:
    """Return the class numbers (N,) of labels: of soft ones (N,K), the most likely class."""
    return labels.argmax(1) if labels.dim() == 2 else labels


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device; only copies from the CPU are not waited for, as the CPU would read others too early."""
    return tensor.to(device, non_blocking=tensor.device.type == "cpu")


def stream(loader: Loader) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of a loader as `unpacked` reads them; its errors name the batch."""
    for number, batch in enumerate(batches_of(loader), 1):
        with errors_at(f"batch {number}"):
            checked = unpacked(batch)
        yield checked


@contextmanager
def errors_at(place: str) -> Iterator[None]:
    """Put a place, such as "batch 3", in front of the text of each ValueError that is raised inside this context."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _channels_last(shape: tuple[int, ...]) -> bool:
    """Return True if a shape is more likely (N,H,W,C) than (N,C,H,W): no image has so few columns and so many rows."""
    _, height, width, channels = shape
    return (height > 16 and channels <= 16) or (min(height, width) > 4 and channels <= 4)


def _tensor(values: object) -> Tensor:
    try:
        return values if isinstance(values, Tensor) else torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        first = f" of {type(values[0]).__name__}" if isinstance(values, tuple | list) and values else ""
        raise ValueError(
            f"labels are {_kind(values)}{first}, but class numbers are needed: a tensor of integers (N,)"
        ) from error


def _has_keys(batch: object) -> TypeGuard[Mapping[str, object]]:
    return hasattr(batch, "keys")  # some batches, such as a TensorDict, are no Mapping


def _of_first_key(batch: Mapping[str, object], known: tuple[str, ...], what: str) -> Any:
    """Return the value of the first known key that the batch has."""
    for key in known:
        if key in batch:
            return batch[key]
    raise ValueError(
        f"the loader yields a dict with the keys {', '.join(map(str, batch))}, but none of them is known to hold "
        f"{what}: rename one to {known[0]!r} (known: {', '.join(known)})"
    )


def _check_distributions(labels: Tensor) -> None:
    sums = labels.float().sum(1)
    if bool((labels < 0).any()) or not bool(torch.isfinite(sums).all()):
        raise ValueError("soft labels hold negative or non-finite values, but each row must be a distribution")
    if not bool(((sums - 1).abs() < 1e-3).all()):
        if bool(((labels == 0) | (labels == 1)).all()):
            raise ValueError(
                "labels mark several classes (or none) for an image: multi-label models cannot be hardened, "
                "give one class for each image"
            )
        raise ValueError(
            f"soft labels sum to between {float(sums.min()):.3g} and {float(sums.max()):.3g}, but each row must sum to 1"
        )


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    name = type(value).__name__
    length = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    return "None" if value is None else f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}{length}"
