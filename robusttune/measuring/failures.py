"""Failures: images that fool the model most easily, kept while an attack is measured."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robusttune.run.archives import check_expansion

KEPT = 8
PICTURES = ("image", "found")


@dataclass(frozen=True)
class Failure:
    """An image that the model classifies right, and an adversarial image of it that it classifies wrong.

    Attributes:
        norm, eps: the adversary that fooled the model.
        label, answer: the image's class, and the model's answer under attack.
        confidence: the model's probability of that answer.
        image, found: the image and the adversarial image: float32 arrays (C,H,W) on [0,1].
    """

    norm: str
    eps: float
    label: int
    answer: int
    confidence: float
    image: np.ndarray
    found: np.ndarray


def worst(failures: Iterable[Failure], count: int = KEPT) -> list[Failure]:
    """Return the failures at the smallest radii; at equal radii, those where the model is surest of its wrong answer."""
    ranked = sorted(failures, key=lambda failure: (failure.eps, -failure.confidence, failure.image.tobytes()))
    first = {failure.image.tobytes(): failure for failure in reversed(ranked)}  # several attacks may fool on one image
    return [failure for failure in ranked if first[failure.image.tobytes()] is failure][:count]


def fallen(norm: str, eps: float, images: Tensor, adversarial: Tensor, labels: Tensor, logits: Tensor) -> list[Failure]:
    """Return the worst failures among images (N,C,H,W), their adversarial images and the logits (N,K) of these."""
    confidence, answers = logits.softmax(1).max(1)
    rows = (answers != labels).nonzero().flatten()
    if not len(rows):
        return []
    rows = rows[confidence[rows].argsort(descending=True)][:KEPT]
    # Joined, as an accelerator is waited for at each copy.
    numbers = torch.stack([labels[rows].double(), answers[rows].double(), confidence[rows].double()], 1).tolist()
    pictures = torch.stack([images[rows].float(), adversarial[rows].float()], 1).cpu().numpy()
    return [
        Failure(norm, eps, int(label), int(answer), sureness, *pair)
        for (label, answer, sureness), pair in zip(numbers, pictures, strict=True)
    ]


def as_bytes(failures: Sequence[Failure]) -> bytes:
    """Return failures as the content of an npz file; pictures of several sizes stand one after the other, with their shapes."""
    columns: dict[str, np.ndarray] = {
        name: np.array([getattr(failure, name) for failure in failures])
        for name in Failure.__annotations__
        if name not in PICTURES
    }
    shapes = [failure.image.shape for failure in failures]
    for name in PICTURES:
        pictures = [getattr(failure, name) for failure in failures]
        columns[name] = (
            np.array(pictures) if len(set(shapes)) < 2 else np.concatenate([each.ravel() for each in pictures])
        )
    if len(set(shapes)) > 1:
        columns["shapes"] = np.array(shapes)
    content = io.BytesIO()
    np.savez_compressed(content, **columns)  # type: ignore[arg-type]  # numpy's stub takes a column for allow_pickle
    return content.getvalue()


def load(file: io.BytesIO) -> list[Failure]:
    """Read what `as_bytes` returned.

    Raises:
        ValueError: the file is of another kind, or would take more memory than such pictures do.
    """
    check_expansion(file, "pictures of failures")
    with np.load(file, allow_pickle=False) as stored:
        columns = dict(stored)
    shapes = columns.pop("shapes", None)
    if shapes is not None:
        ends = shapes.prod(1).cumsum()[:-1]
        for name in PICTURES:
            parts = np.split(columns[name], ends)
            columns[name] = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
    rows = zip(*(columns[name] for name in Failure.__annotations__), strict=True)
    return [Failure(str(norm), float(eps), int(a), int(b), float(c), *two) for norm, eps, a, b, c, *two in rows]
