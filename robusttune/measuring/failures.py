"""The images that a model is fooled on most easily, kept while an attack is measured."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

KEPT = 8


@dataclass(frozen=True)
class Failure:
    """An image that the model knew, and what an attack made of it.

    Attributes:
        norm, eps: the adversary that it fell to.
        label, answer: its class, and the one that the model answers under attack.
        confidence: the model's probability of that answer.
        image, found: it, and the adversarial image: float32 arrays (C,H,W) on [0,1].
    """

    norm: str
    eps: float
    label: int
    answer: int
    confidence: float
    image: np.ndarray
    found: np.ndarray


def worst(failures: Iterable[Failure], count: int = KEPT) -> list[Failure]:
    """Those that fell to the smallest radius; of these, those where the model is surest of the wrong answer."""
    ranked = sorted(failures, key=lambda each: (each.eps, -each.confidence, each.image.tobytes()))
    once = {each.image.tobytes(): each for each in reversed(ranked)}  # an image may fall to several attacks
    return [each for each in ranked if once[each.image.tobytes()] is each][:count]


def fallen(norm: str, eps: float, images: Tensor, found: Tensor, labels: Tensor, logits: Tensor) -> list[Failure]:
    """The worst failures among images (N,C,H,W) and what an attack made of them, with its logits (N,K)."""
    confidence, answers = logits.softmax(1).max(1)
    rows = (answers != labels).nonzero().flatten()
    rows = rows[confidence[rows].argsort(descending=True)][:KEPT]
    return [
        Failure(norm, eps, *numbers, *pictures)
        for numbers, pictures in zip(
            zip(labels[rows].tolist(), answers[rows].tolist(), confidence[rows].tolist(), strict=True),
            zip(images[rows].float().cpu().numpy(), found[rows].float().cpu().numpy(), strict=True),
            strict=True,
        )
    ]


def save(failures: Sequence[Failure], path: Path) -> None:
    """Write them to an npz file, which is replaced only once all is written."""
    draft = path.with_name(path.name + ".part")
    columns: dict[str, Any] = {
        key: np.array([getattr(each, key) for each in failures]) for key in Failure.__annotations__
    }
    with draft.open("wb") as file:
        np.savez_compressed(file, **columns)
    draft.replace(path)


def load(path: Path) -> list[Failure]:
    """Read what `save` wrote."""
    with np.load(path) as columns:
        rows = zip(*(columns[key] for key in Failure.__annotations__), strict=True)
        return [Failure(str(norm), float(eps), int(a), int(b), float(c), *two) for norm, eps, a, b, c, *two in rows]
