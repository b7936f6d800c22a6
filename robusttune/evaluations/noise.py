"""Accuracy under random noise of growing size."""

from collections.abc import Sequence

import torch
from torch import Tensor

from robusttune.evaluations import Passes, Record, Subject, accuracy, checked_by, takes
from robusttune.norms import NormLike, default_eps, radii
from robusttune.run.settings import COUNT, check_number
from robusttune.threat import ThreatModel

__all__ = ["noise"]

MULTIPLES = (0.5, 1.0, 2.0, 4.0)


def _passes(subject: Subject, *, norm: NormLike | None, eps: Sequence[float] | None, draws: int) -> Passes:
    threats, generator = _threats(subject, norm, eps), subject.generator()

    def beside(pixels: Tensor) -> None:
        for threat in threats * draws:
            threat.start(pixels, generator)

    return Passes(draws * len(threats), beside=beside)


def _check(subject: Subject, *, draws: int) -> None:
    check_number("draws", draws, COUNT)


@checked_by(_check)
@takes(_passes)
def noise(
    subject: Subject, *, norm: NormLike | None = None, eps: Sequence[float] | None = None, draws: int = 10
) -> list[Record]:
    """Measure the accuracy under random perturbations of size eps, which any attack must bring lower.

    An image counts as right if it is right under all draws.

    Args:
        subject: the model and its images.
        norm: norm of the ball from which perturbations are drawn; by default that of the training.
        eps: radii in pixel units on [0,1]; by default from half of to four times the training radius (for another norm, its
            usual radius).
        draws: the number of perturbations for each image and radius.

    Raises:
        ValueError: `draws` is below 1, or a radius is none.
    """
    _check(subject, draws=draws)
    threats = _threats(subject, norm, eps)
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


def _threats(subject: Subject, norm: NormLike | None, eps: Sequence[float] | None) -> list[ThreatModel]:
    adversary = subject.adversary(norm)
    radius = adversary.eps or default_eps(adversary.norm, subject.shape)
    sizes = sorted(set(eps)) if eps else radii(adversary.norm, radius, MULTIPLES)
    return [ThreatModel(adversary.norm, size) for size in sizes]
