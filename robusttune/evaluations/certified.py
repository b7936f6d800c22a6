"""Accuracy that is proven by randomised smoothing, in l2."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from robusttune.evaluations import Record, Subject, accuracy

__all__ = ["certified"]

BATCH = 500


def certified(
    subject: Subject,
    *,
    sigma: float = 0.25,
    radii: Sequence[float] | None = None,
    draws: int = 1000,
    choosing_draws: int = 100,
    alpha: float = 0.001,
) -> list[Record]:
    """The share of images whose smoothed class is right and proven not to change within l2 radii; and of abstentions.

    What is certified is not the model but its smoothed version, which answers with the class that the model most often
    gives under Gaussian noise. Where the noise does not decide between classes, it abstains, which counts as wrong. A
    model that has not seen such noise in training certifies little.

    Args:
        subject: the model and its images.
        sigma: of the noise, in pixel units on [0,1].
        radii: in the same units; multiples of sigma, from 0 up, unless given.
        draws: of noise for each image's bound; the largest radius that can be proven grows with it.
        choosing_draws: before that, to choose the class.
        alpha: how often an image's proof may be false.

    Raises:
        ImportError: scipy is not installed.

    Source: Cohen, Rosenfeld and Kolter, arXiv:1902.02918, algorithm CERTIFY; bounds of Clopper and Pearson 1934.
    """
    beta = _beta()
    radii = [multiple * sigma for multiple in (0.0, 0.5, 1.0, 1.5, 2.0)] if radii is None else sorted(radii)
    generator = subject.generator()
    proven: list[tuple[bool, float]] = []  # whether the class is right, and its radius; none where it abstains
    for pixels, labels in subject.batches():
        for image, label in zip(pixels, labels.tolist(), strict=True):
            chosen = int(_votes(subject, image, sigma, choosing_draws, generator).argmax())
            votes = int(_votes(subject, image, sigma, draws, generator)[chosen])
            proven.append((chosen == label, radius_of(votes, draws, sigma, alpha, beta)))
    setting = {"sigma": sigma, "draws": draws, "alpha": alpha, "seed": subject.seed}
    records = []
    for radius in radii:
        right = [hit and far >= radius for hit, far in proven]  # an abstention's radius is NaN
        count, images = subject.totals(sum(right), len(right))
        what = {"norm": "l2", "eps": radius, "attack": "any (certified)", **setting}
        records.append(accuracy("certified", count, images, what, metric="certified accuracy", right=right))
    count, images = subject.totals(sum(math.isnan(far) for _, far in proven), len(proven))
    records.append(accuracy("certified", count, images, setting, metric="abstentions"))
    return records


def radius_of(votes: int, draws: int, sigma: float, alpha: float, beta: Any) -> float:
    """The l2 radius that so many votes out of `draws` prove with confidence 1 - alpha; NaN where they prove nothing.

    The share behind the votes is at least the one-sided bound of Clopper and Pearson, whose normal quantile, times sigma,
    is the radius.
    """
    lower = float(beta.ppf(alpha, votes, draws - votes + 1)) if votes else 0.0
    if lower <= 0.5:
        return math.nan
    return sigma * math.sqrt(2) * float(torch.erfinv(torch.tensor(2 * lower - 1, dtype=torch.float64)))


def _votes(subject: Subject, image: Tensor, sigma: float, draws: int, generator: torch.Generator) -> Tensor:
    """How often each class (K,) is given to an image (C,H,W) under noise."""
    votes = torch.zeros(subject.classes, dtype=torch.long, device=image.device)
    for start in range(0, draws, BATCH):
        noise = torch.empty(min(BATCH, draws - start), *image.shape, device=image.device).normal_(generator=generator)
        votes += torch.bincount(subject.predicted(image + sigma * noise), minlength=subject.classes)
    return votes


def _beta() -> Any:
    try:
        from scipy.stats import beta
    except ImportError as error:
        raise ImportError("exact binomial bounds need scipy: pip install 'robusttune[certified]'") from error
    return beta


certified.installed = _beta  # type: ignore[attr-defined]
