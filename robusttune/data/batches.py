"""What a loader yields, as images and labels, checked before anything is computed from it."""

import logging
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from robusttune.data.loaders import is_exhaustible
from robusttune.run.provenance import digest, tensor_bytes

IMAGE_KEYS = ("pixel_values", "images", "image", "img", "inputs", "x")
LABEL_KEYS = ("labels", "label", "targets", "target", "y")

logger = logging.getLogger("robusttune")


def first_batch(loader: Any, name: str = "loader") -> Any:
    """The first thing that a loader yields, as it is.

    Raises:
        ValueError: there is none.
    """
    batch = next(iter(loader), None)
    if batch is None:
        raise ValueError(f"the {name} is empty: check the data set's length, the sampler and drop_last")
    if isinstance(batch, tuple | list) and len(batch) > 2:
        logger.info("batches have %d items: the first two are taken as images and labels", len(batch))
    return batch


def unpacked(batch: Any, *, wait: bool = True) -> tuple[Tensor, Tensor]:
    """Images (N,C,H,W) and labels, (N,) or soft (N,K), of one batch of a user's loader.

    Batches are pairs, longer tuples (the first two items are taken), or dicts with keys such as "pixel_values" and
    "labels". Values are checked: images are finite floats or uint8, labels are class numbers or distributions.

    Args:
        wait: check the values of tensors on an accelerator too, although it has to be waited for.

    Raises:
        ValueError: what was got, and what is allowed.
    """
    if isinstance(batch, dict) or hasattr(batch, "keys"):
        images, labels = _keyed(batch, IMAGE_KEYS, "images"), _keyed(batch, LABEL_KEYS, "labels")
    elif isinstance(batch, tuple | list) and len(batch) >= 2:
        images, labels = batch[0], batch[1]
    else:
        raise ValueError(f"the loader yields {_kind(batch)}, but (images, labels) or a dict of both is needed")
    check_images(images, wait=wait)
    return images, checked_labels(labels, len(images), wait=wait)


def images_only(batch: Any, *, wait: bool = True) -> tuple[Tensor, None]:
    """The images (N,C,H,W) of one batch with or without labels: a tensor, a tuple led by one, or a dict.

    Raises:
        ValueError: what was got, and what is allowed.
    """
    if isinstance(batch, dict) or hasattr(batch, "keys"):
        batch = _keyed(batch, IMAGE_KEYS, "images")
    images = batch[0] if isinstance(batch, tuple | list) and batch else batch
    check_images(images, wait=wait)
    return images, None


def check_images(images: Any, *, wait: bool = False) -> None:
    """Raise a ValueError unless images are a finite tensor (N,C,H,W) of floats or uint8; `wait` as in `unpacked`."""
    if not isinstance(images, Tensor):
        raise ValueError(f"images are {_kind(images)}, but a tensor is needed: add ToTensor to the transform")
    shape = tuple(images.shape)
    if len(shape) != 4:
        hint = ": are these single images? Wrap the data set in a DataLoader" if len(shape) == 3 else ""
        raise ValueError(f"images have shape {shape}, but (N, C, H, W) is needed{hint}")
    if 0 in shape:
        raise ValueError(f"images have shape {shape}: the batch has no images, or they have no pixels")
    if _channels_last(shape):
        raise ValueError(f"images have shape {shape}, which looks like (N, H, W, C): permute them to (N, C, H, W)")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        advice = "take .abs() or .real" if images.is_complex() else "call .float(), and divide by 255 if that is white"
        raise ValueError(f"images are {images.dtype}, but floats or uint8 are needed: {advice}")
    readable = images.is_floating_point() and (wait or images.device.type == "cpu")
    if readable and not bool(torch.isfinite(images).all()):
        raise ValueError("images hold NaN or infinite values: look for broken files or a division by zero std")


def check_channels(images: Tensor, channels: int | None) -> None:
    """Raise a ValueError unless images (N,C,H,W) have as many channels as those before them, if that is known."""
    if channels is not None and images.shape[1] != channels:
        raise ValueError(
            f"images have {images.shape[1]} channels, but those before them had {channels}: convert all of them alike, as "
            'with image.convert("RGB")'
        )


def checked_labels(labels: Any, images: int, *, wait: bool = False) -> Tensor:
    """Labels as int64 class numbers (N,) or float distributions (N,K).

    Raises:
        ValueError: another length, floats that are no distributions, or several classes at once.
    """
    given = _tensor(labels)
    if len(given.shape) == 0 or len(given) != images:
        raise ValueError(
            f"there are {images} images but labels of shape {tuple(given.shape)}: one label for each is needed"
        )
    if given.dim() == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.dim() == 1:
        if given.is_floating_point():
            raise ValueError(
                f"labels are {given.dtype} of shape {tuple(given.shape)}, but class numbers are integers: call .long()"
            )
        return given.long()
    if given.dim() != 2:
        raise ValueError(
            f"labels have shape {tuple(given.shape)}, but (N,) or (N, classes) is needed: masks and boxes cannot be used"
        )
    if wait or given.device.type == "cpu":
        _check_distributions(given)
    return given.float()


def check_classes(labels: Tensor, classes: int) -> None:
    """Raise a ValueError unless every label is below the number of classes."""
    if labels.dim() == 2:
        if labels.shape[1] != classes:
            raise ValueError(f"soft labels have {labels.shape[1]} columns, but the model has {classes} classes")
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise ValueError(f"label {wrong} is out of range: the model has {classes} classes, numbered 0 to {classes - 1}")


def hard(labels: Tensor) -> Tensor:
    """The most likely class of each label: (N,)."""
    return labels.argmax(1) if labels.dim() == 2 else labels


def stream(loader: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """The checked batches of a loader."""
    for number, batch in enumerate(loader):
        with located(f"batch {number + 1}"):
            found = unpacked(batch)
        yield found


class Batches:
    """The checked batches of a user's loader, whose first one can be looked at without losing it.

    Attributes:
        count: batches an epoch; None where the loader does not say.
    """

    def __init__(self, loader: Any, *, labelled: bool = True) -> None:
        self.loader = loader
        self.name = "loader" if labelled else "unlabeled_loader"
        self.unpacked: Any = unpacked if labelled else images_only
        self.count = len(loader) if isinstance(loader, Sized) else None
        self.once = is_exhaustible(loader)
        self.peeked: Any = None
        self.channels: int | None = None

    def first(self) -> Any:
        """The first batch.

        Raises:
            ValueError: there is none.
        """
        self.peeked = self.unpacked(first_batch(self.loader, self.name))
        self.channels = self.peeked[0].shape[1]
        return self.peeked

    def epoch(self, number: int) -> Iterator[Any]:
        """The batches of one epoch."""
        count = 0
        if self.once and self.peeked is not None:
            yield self.peeked
            count, self.peeked = 1, None
        for batch in self.loader:
            count += 1
            with located(f"batch {count} of epoch {number + 1}"):
                found = self.unpacked(batch, wait=False)
                check_channels(found[0], self.channels)
            yield found
        if not count:
            raise ValueError(f"the {self.name} had no batch in epoch {number + 1}: it must start anew in each epoch")

    def facts(self) -> dict[str, Any]:
        """What tells this loader's data from others: the images, the batches, and the first batch's shape and contents."""
        dataset = getattr(self.loader, "dataset", None)
        images = len(dataset) if isinstance(dataset, Sized) else None
        shape = None if self.peeked is None else list(self.peeked[0].shape)
        first = None if self.peeked is None else digest(tensor_bytes(each) for each in self.peeked if each is not None)
        return {"images": images, "batches": self.count, "shape": shape, "first": first}

    def endless(self) -> Iterator[Tensor]:
        """The images of one epoch after the other."""
        number = 0
        while True:
            for images, _ in self.epoch(number):
                yield images
            number += 1


@contextmanager
def located(place: str) -> Iterator[None]:
    """Say in errors where they are from."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _channels_last(shape: tuple[int, ...]) -> bool:
    """Whether a shape is (N,H,W,C) rather than (N,C,H,W): so few columns and so many channels are no image."""
    _, height, width, channels = shape
    return (height > 16 and channels <= 16) or (min(height, width) > 4 and channels <= 4)


def _tensor(values: Any) -> Tensor:
    try:
        return values if isinstance(values, Tensor) else torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        first = f" of {type(values[0]).__name__}" if isinstance(values, tuple | list) and values else ""
        raise ValueError(
            f"labels are {_kind(values)}{first}, but class numbers are needed: a tensor of integers (N,)"
        ) from error


def _keyed(batch: Any, known: tuple[str, ...], what: str) -> Any:
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


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    name = type(value).__name__
    length = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    return "None" if value is None else f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}{length}"
