"""Losses that evaluations let attacks maximise, each (logits (N,K), labels (N,)) -> (N,)."""

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

LossName: TypeAlias = Literal["cross_entropy", "margin"]
LossPerImage: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each image: (N,)."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the largest wrong logit minus the right one, which does not saturate: (N,)."""
    is_label = F.one_hot(labels, logits.shape[1]).bool()
    wrong = logits.masked_fill(is_label, -torch.inf).amax(1)
    return wrong - logits.gather(1, labels[:, None])[:, 0]


def targeted_margin(targets: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Return the logit of the target class minus that of the label: (N,)."""
    return (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None]))[:, 0]


LOSSES: dict[LossName, LossPerImage] = {"cross_entropy": cross_entropy, "margin": margin}
