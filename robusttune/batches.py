"""What a loader yields, as images and labels, checked before anything is computed from it."""

import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

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
    labels = _tensor(labels)
    if len(labels.shape) == 0 or len(labels) != images:
        raise ValueError(
            f"there are {images} images but labels of shape {tuple(labels.shape)}: one label for each is needed"
        )
    if labels.dim() == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dim() == 1:
        if labels.is_floating_point():
            raise ValueError(
                f"labels are {labels.dtype} of shape {tuple(labels.shape)}, but class numbers are integers: call .long()"
            )
        return labels.long()
    if labels.dim() != 2:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}, but (N,) or (N, classes) is needed: masks and boxes cannot be used"
        )
    return _distributions(labels)


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


def same_size(labels: Tensor, classes: int) -> Tensor:
    """Labels as distributions (N,K)."""
    return F.one_hot(labels, classes).float() if labels.dim() == 1 else labels


def hard(labels: Tensor) -> Tensor:
    """The most likely class of each label: (N,)."""
    return labels.argmax(1) if labels.dim() == 2 else labels


def stream(loader: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """The checked batches of a loader."""
    for batch in loader:
        yield unpacked(batch)


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
