"""Accuracy under random noise of growing size."""

from collections.abc import Sequence
from typing import Any

import torch

from robusttune.evaluations import Record, Subject, accuracy
from robusttune.threat import ThreatModel, default_eps, radii

__all__ = ["noise"]

MULTIPLES = (0.5, 1.0, 2.0, 4.0)


def noise(subject: Subject, *, norm: Any = None, eps: Sequence[float] | None = None, draws: int = 10) -> list[Record]:
    """The accuracy under random perturbations of size eps, as a lower bar: any attack must find more.

    An image counts as right where it is right under all draws.

    Args:
        subject: the model and its images.
        norm: of the ball that perturbations are drawn from; that of the training adversary unless given.
        eps: radii in pixel units on [0,1]; from half of to four times the training radius unless given (the customary one
            for another norm).
        draws: for each image and radius.
    """
    norm = subject.adversary(norm).norm
    radius = subject.adversary(norm).eps or default_eps(norm, subject.shape)
    threats = [ThreatModel(norm, each) for each in (sorted(set(eps)) if eps else radii(norm, radius, MULTIPLES))]
    single: dict[ThreatModel, list[bool]] = {threat: [] for threat in threats}
    generator = subject.generator()
    for pixels, labels in subject.batches():
        for threat in threats:
            right = torch.ones_like(labels, dtype=torch.bool)
            for _ in range(draws):
                right = right & (subject.predicted(threat.start(pixels, generator)) == labels)
            single[threat] += right.tolist()
    images, *counts = subject.totals(len(single[threats[0]]), *map(sum, single.values()))
    setting = {"attack": f"random noise, {draws} draws", "seed": subject.seed}
    return [
        accuracy("noise", count, images, {"norm": threat.norm, "eps": threat.eps, **setting}, right=single[threat])
        for threat, count in zip(threats, counts, strict=True)
    ]
