"""Accuracy that randomised smoothing proves, in l2."""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from robusttune import plugins
from robusttune.evaluations import Passes, Record, Subject, accuracy, checked_by, takes
from robusttune.run.settings import COUNT, NOT_NEGATIVE, POSITIVE, AllowedRange, check_number

__all__ = ["certified"]

BATCH = 500
ERROR = AllowedRange("a number above 0 and below 1", lambda value: 0 < value < 1)


class _Beta(Protocol):
    """The part of scipy.stats.beta that is used here."""

    def ppf(self, q: float, a: float, b: float) -> float: ...


def _beta() -> _Beta:
    try:
        from scipy.stats import beta
    except ImportError as error:
        raise ImportError("exact binomial bounds need scipy: pip install 'robusttune[certified]'") from error
    distribution: _Beta = beta
    return distribution


def _passes(subject: Subject, *, draws: int, choosing_draws: int) -> Passes:
    return Passes(draws + choosing_draws)


def _check(
    subject: Subject, *, sigma: float, radii: Sequence[float] | None, draws: int, choosing_draws: int, alpha: float
) -> None:
    check_number("sigma", sigma, POSITIVE)
    check_number("draws", draws, COUNT)
    check_number("choosing_draws", choosing_draws, COUNT)
    check_number("alpha", alpha, ERROR)
    for radius in radii or ():
        check_number("radii", radius, NOT_NEGATIVE)


@checked_by(_check)
@takes(_passes)
@plugins.requires(_beta)
def certified(
    subject: Subject,
    *,
    sigma: float = 0.25,
    radii: Sequence[float] | None = None,
    draws: int = 1000,
    choosing_draws: int = 100,
    alpha: float = 0.001,
) -> list[Record]:
    """Measure the share of images whose smoothed class is right and provably constant within l2 radii; and abstentions.

    The certificate holds for the smoothed version of the model, which answers with the class that the model most often
    returns under Gaussian noise. It abstains if the noise does not decide between classes, which counts as wrong. A model
    that has not seen such noise in training certifies little.

    Args:
        subject: the model and its images.
        sigma: standard deviation of the noise, in pixel units on [0,1].
        radii: in the same units; by default multiples of sigma, from 0 up.
        draws: the number of noisy copies for each image's bound; the largest provable radius grows with it.
        choosing_draws: the number of noisy copies that choose the class beforehand.
        alpha: the probability that an image's proof is false.

    Raises:
        ImportError: scipy is not installed.
        ValueError: a setting is out of range.

    Source: Cohen, Rosenfeld and Kolter, arXiv:1902.02918, algorithm CERTIFY; bounds of Clopper and Pearson 1934.
    """
    beta = _beta()
    _check(subject, sigma=sigma, radii=radii, draws=draws, choosing_draws=choosing_draws, alpha=alpha)
    radii = [multiple * sigma for multiple in (0.0, 0.5, 1.0, 1.5, 2.0)] if radii is None else sorted(radii)
    generator = subject.generator()
    proofs: list[tuple[bool, float]] = []  # (the class is right, its radius; NaN for an abstention)
    for pixels, labels in subject.batches():
        for image, label in zip(pixels, labels.tolist(), strict=True):
            chosen = int(_votes(subject, image, sigma, choosing_draws, generator).argmax())
            votes = int(_votes(subject, image, sigma, draws, generator)[chosen])
            proofs.append((chosen == label, radius_of(votes, draws, sigma, alpha, beta)))
    setting = {"sigma": sigma, "draws": draws, "choosing_draws": choosing_draws, "alpha": alpha, "seed": subject.seed}
    records = []
    for radius in radii:
        right = [is_right and proven >= radius for is_right, proven in proofs]
        count, images = subject.totals(sum(right), len(right))
        at_radius = {"norm": "l2", "eps": radius, "attack": "any (certified)", **setting}
        records.append(accuracy("certified", count, images, at_radius, metric="certified accuracy", right=right))
    count, images = subject.totals(sum(math.isnan(proven) for _, proven in proofs), len(proofs))
    records.append(accuracy("certified", count, images, setting, metric="abstentions"))
    return records


def radius_of(votes: int, draws: int, sigma: float, alpha: float, beta: _Beta) -> float:
    """Return the l2 radius that the votes out of `draws` prove with confidence 1 - alpha; NaN if they prove nothing.

    The radius is sigma times the normal quantile of the one-sided lower bound of Clopper and Pearson on the share of
    votes.
    """
    lower = float(beta.ppf(alpha, votes, draws - votes + 1)) if votes else 0.0
    if lower <= 0.5:
        return math.nan
    return sigma * math.sqrt(2) * float(torch.erfinv(torch.tensor(2 * lower - 1, dtype=torch.float64)))


def _votes(subject: Subject, image: Tensor, sigma: float, draws: int, generator: torch.Generator) -> Tensor:
    """Count the noisy copies of an image (C,H,W) that get each class: (K,)."""
    votes = torch.zeros(subject.classes, dtype=torch.long, device=image.device)
    for start in range(0, draws, BATCH):
        noise = torch.empty(min(BATCH, draws - start), *image.shape, device=image.device).normal_(generator=generator)
        votes += torch.bincount(subject.predicted(image + sigma * noise), minlength=subject.classes)
    return votes
