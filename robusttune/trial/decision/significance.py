"""Significance tests of the differences between arms, over seeds and test images."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[np.float64]
LEVEL = 0.05  # significance level
FEWEST_SEEDS = 3  # by which the scatter from seed to seed can be estimated


@dataclass(frozen=True)
class Differences:
    """Differences of pairs of arms, each array of shape (…, P, N): pairs, metrics.

    Attributes:
        value: mean over seeds of the second arm's accuracy minus the first's.
        error: its standard error.
        freedom: degrees of freedom of that error.
        p: p-value of each pair and metric by itself.
    """

    value: Numbers
    error: Numbers
    freedom: Numbers
    p: Numbers


def differences(
    values: Numbers,
    pairs: Sequence[tuple[int, int]],
    *,
    untrained: Collection[int],
    images: Numbers | float,
    count: float,
) -> Differences:
    """Test the differences of pairs of arms over seeds that all arms share, by Student's t.

    The variance of a difference has two parts: the seeds, and the choice of test images. A few seeds are too few to
    estimate the scatter of one arm, so the pooled variance of all trained arms is used, or a larger one where a pair
    scatters more, with fewer degrees of freedom.

    Args:
        values: accuracies (…, A, S, N) of arms, seeds and metrics; at least two seeds.
        pairs: (first, second) arms by number.
        untrained: numbers of the arms that are one model, whatever the seed.
        images: the part of each difference's variance that comes from the images (…, P, N), see `images_variance`.
        count: number of images.

    Source: Satterthwaite 1946, doi:10.2307/3002019, for the degrees of freedom of a sum of variances.
    """
    trained = [arm for arm in range(values.shape[-3]) if arm not in untrained]
    seeds = values.shape[-2]
    of_arm, of_difference = _scatter(values[..., trained, :, :])
    of_pairs = [_of_pair(values, pair, untrained, of_arm=of_arm, of_difference=of_difference) for pair in pairs]
    value, variance, freedom = (np.stack(parts, axis=-2) for parts in zip(*of_pairs, strict=True))
    images = np.broadcast_to(np.asarray(images, dtype=float), value.shape)
    total = variance / seeds + images
    inverse = _share(variance / seeds, total) ** 2 / freedom + _share(images, total) ** 2 / max(count - 1, 1)
    freedom = 1 / np.maximum(inverse, 1e-9)
    error = np.sqrt(total)
    ratio = np.where(error > 0, np.abs(value) / np.maximum(error, 1e-300), np.where(value == 0, 0.0, np.inf))
    return Differences(value, error, freedom, 2 * student().sf(ratio, freedom))


def images_variance(first: Numbers, second: Numbers) -> Numbers:
    """Estimate the variance of a difference that comes from the choice of test images; more seeds do not lower it.

    Args:
        first, second: share of right answers (…, S, M) of two arms to each image, with each seed.

    Source: the variance of a mean over two crossed random factors, seeds and images, minus their interaction.
    """
    difference = second - first
    seeds, images = difference.shape[-2:]
    means = difference.mean(axis=-2)
    among = means.var(axis=-1, ddof=1) if images > 1 else np.zeros(means.shape[:-1])
    within = ((difference - means[..., None, :]) ** 2).sum(axis=(-2, -1)) / max(seeds - 1, 1) / images
    # A share of images is not known better than to one image.
    least: Numbers = np.maximum(among - within / seeds, 1 / images) / images
    return least


def images_part(right: Sequence[Numbers | None], spread: Numbers, pairs: Sequence[tuple[int, int]]) -> Numbers:
    """Return the variance (P,N) of each difference of two arms that comes from the choice of test images.

    Args:
        right: for each of N metrics the share of right answers to each image (A,S,M); None if it is not known.
        spread: standard errors (A,S,N) of each accuracy by the number of images, for metrics without single images: there
            each arm counts as measured on other images.
        pairs: (first, second) arms by number.
    """
    variances = np.empty((len(pairs), len(right)))
    alone = (spread**2).mean(axis=1)
    for column, shares in enumerate(right):
        for row, (first, second) in enumerate(pairs):
            apart = alone[first, column] + alone[second, column]
            variances[row, column] = apart if shares is None else images_variance(shares[first], shares[second])
    return variances


def holm(p: Numbers) -> Numbers:
    """Return Holm-adjusted p-values over the last two axes (family-wise error rate 5% if those below 5% are significant).

    Source: Holm 1979, Scandinavian Journal of Statistics 6.

    Example:
        >>> holm(np.array([[0.01, 0.04], [0.03, 0.5]])).round(3).tolist()
        [[0.04, 0.09], [0.09, 0.5]]
    """
    flat = p.reshape(*p.shape[:-2], -1)
    order = flat.argsort(axis=-1)
    times = np.arange(flat.shape[-1], 0, -1)
    raised = np.maximum.accumulate(np.take_along_axis(flat, order, -1) * times, axis=-1).clip(max=1)
    adjusted = np.empty_like(flat)
    np.put_along_axis(adjusted, order, raised, -1)
    return adjusted.reshape(p.shape)


def half_width(error: Numbers | float, freedom: Numbers | float) -> Numbers:
    """Return half of the width of a 95% interval, by Student's t."""
    width: Numbers = error * student().ppf(1 - LEVEL / 2, freedom)
    return width


def student() -> Any:
    """Import Student's t distribution, an object of scipy, which has no types.

    Raises:
        ImportError: scipy is not installed.
    """
    try:
        from scipy.stats import t
    except ImportError as error:
        raise ImportError("testing significance needs scipy: pip install 'robusttune[poc]'") from error
    return t


def normal() -> Any:
    """Import the normal distribution, an object of scipy, which has no types; see `student`."""
    student()
    from scipy.stats import norm

    return norm


def chi2() -> Any:
    """Import the chi-squared distribution; see `normal`."""
    student()
    from scipy.stats import chi2

    return chi2


def pair_scatter(values: Numbers) -> Numbers:
    """Return the variance (…, N) of a difference of two trained arms from seed to seed, pooled over arms (…, A, S, N)."""
    return _scatter(values)[1][0]


# A variance (…, N) and its degrees of freedom.
Scatter: TypeAlias = tuple[Numbers, Numbers]


def _scatter(values: Numbers) -> tuple[Scatter, Scatter]:
    """Return the scatter of an arm, and of a difference of two, from seed to seed, pooled over arms (…, A, S, N)."""
    arms, seeds = values.shape[-3], values.shape[-2]
    apart = values - values.mean(axis=-2, keepdims=True)
    shared = apart.mean(axis=-3, keepdims=True)
    freedom = (arms - 1) * (seeds - 1)
    rest = ((apart - shared) ** 2).sum(axis=(-3, -2)) / max(freedom, 1)
    common = (shared**2).sum(axis=(-3, -2)) / (seeds - 1)  # effect of a seed on all arms alike, plus rest / arms
    of_arm = common + rest * (arms - 1) / arms
    inverse = _share(common, of_arm) ** 2 / (seeds - 1) + (1 - _share(common, of_arm)) ** 2 / max(freedom, 1)
    return (of_arm, 1 / inverse), (2 * rest, np.full_like(rest, max(freedom, 1)))


def _of_pair(
    values: Numbers, pair: tuple[int, int], untrained: Collection[int], *, of_arm: Scatter, of_difference: Scatter
) -> tuple[Numbers, Numbers, Numbers]:
    """Return the difference (…, N) of a pair, its variance from seed to seed, and the variance's degrees of freedom."""
    first, second = pair
    difference = values[..., second, :, :] - values[..., first, :, :]
    seeds = difference.shape[-2]
    of_pair = difference.var(axis=-2, ddof=1)
    if first in untrained and second in untrained:
        return difference.mean(axis=-2), of_pair, np.full_like(of_pair, seeds - 1)
    pooled, freedom = of_arm if first in untrained or second in untrained else of_difference
    ratio = np.where(pooled > 0, _share(of_pair, pooled), 1.0).mean(axis=-1, keepdims=True)
    variance = np.maximum(pooled * np.maximum(ratio, 1.0), of_pair)
    known = _share(pooled, variance)
    inverse = known**2 / freedom + (1 - known) ** 2 / (seeds - 1)
    return difference.mean(axis=-2), variance, 1 / inverse


def _share(part: Numbers, whole: Numbers) -> Numbers:
    """Divide a part by the whole; 1 where the whole is 0."""
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), 1.0)
