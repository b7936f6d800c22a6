"""What a loader yields, as images and labels, checked before anything is computed from it."""

import logging
from collections.abc import Iterator, Sized
from typing import Any

import torch
from torch import Tensor

IMAGE_KEYS = ("pixel_values", "images", "image", "img", "inputs", "x")
LABEL_KEYS = ("labels", "label", "targets", "target", "y")

logger = logging.getLogger("robusttune")


def unpacked(batch: Any) -> tuple[Tensor, Tensor]:
    """Images (N,C,H,W) and labels, (N,) or soft (N,K), of one batch of a user's loader.

    Batches are pairs, longer tuples (the first two items are taken), or dicts with keys such as "pixel_values" and
    "labels". Values are checked: images are finite floats or uint8, labels are class numbers or distributions.

    Raises:
        ValueError: what was got, and what is allowed.
    """
    if isinstance(batch, dict) or hasattr(batch, "keys"):
        images, labels = _keyed(batch, IMAGE_KEYS, "images"), _keyed(batch, LABEL_KEYS, "labels")
    elif isinstance(batch, tuple | list) and len(batch) >= 2:
        images, labels = batch[0], batch[1]
    else:
        raise ValueError(f"the loader yields {_kind(batch)}, but (images, labels) or a dict of both is needed")
    check_images(images)
    return images, checked_labels(labels, len(images))


def check_images(images: Any) -> None:
    """Raise a ValueError unless images are a finite tensor (N,C,H,W) of floats or uint8."""
    if not isinstance(images, Tensor):
        raise ValueError(f"images are {_kind(images)}, but a tensor is needed: add ToTensor to the transform")
    if images.dim() != 4:
        raise ValueError(f"images have shape {tuple(images.shape)}, but (N, C, H, W) is needed")
    if len(images) == 0:
        raise ValueError("the batch has no images")
    if images.shape[1] > 16 and images.shape[3] <= 16:
        raise ValueError(
            f"images have shape {tuple(images.shape)}, which looks like (N, H, W, C): permute them to (N, C, H, W)"
        )
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}, but floats or uint8 are needed: call .float() / 255")
    if images.is_floating_point() and not bool(torch.isfinite(images).all()):
        raise ValueError("images hold NaN or infinite values: look for broken files or a division by zero std")


def checked_labels(labels: Any, images: int) -> Tensor:
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
    return _distributions(given)


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
    for batch in loader:
        yield unpacked(batch)


class Batches:
    """The checked batches of a user's loader, whose first one can be looked at without losing it.

    Attributes:
        count: batches an epoch; None where the loader does not say.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.count = len(loader) if isinstance(loader, Sized) else None
        self.once = is_exhaustible(loader)
        self.peeked: tuple[Tensor, Tensor] | None = None

    def first(self) -> tuple[Tensor, Tensor]:
        """The first batch.

        Raises:
            ValueError: there is none.
        """
        batch = next(iter(self.loader), None)
        if batch is None:
            raise ValueError("the loader is empty: there is nothing to train on")
        self.peeked = unpacked(batch)
        return self.peeked

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch."""
        empty = True
        if self.once and self.peeked is not None:
            yield self.peeked
            empty, self.peeked = False, None
        for batch in self.loader:
            empty = False
            yield unpacked(batch)
        if empty:
            raise ValueError(f"the loader had no batch in epoch {number + 1}: it must start anew in each epoch")


def is_exhaustible(loader: Any) -> bool:
    """Whether the loader is an iterator, which can be gone through only once."""
    return iter(loader) is loader


def _tensor(values: Any) -> Tensor:
    return values if isinstance(values, Tensor) else torch.as_tensor(values)


def _keyed(batch: Any, known: tuple[str, ...], what: str) -> Any:
    for key in known:
        if key in batch:
            return batch[key]
    raise ValueError(
        f"the loader yields a dict with the keys {', '.join(map(str, batch))}, but none of them is known to hold "
        f"{what}: rename one to {known[0]!r} (known: {', '.join(known)})"
    )


def _distributions(labels: Tensor) -> Tensor:
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
    return labels.float()


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    length = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    return f"a {type(value).__name__}{length}"
