"""Differences between arms of a trial, and whether training with other seeds could have made them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[np.float64]
LEVEL = 0.05  # of significance
FEWEST_SEEDS = 3  # by which the scatter from seed to seed can be estimated


@dataclass(frozen=True)
class Differences:
    """What pairs of arms differ by, each array of shape (…, P, N): pairs, needs.

    Attributes:
        value: mean over seeds of the second arm's accuracy less the first's.
        error: its standard error.
        freedom: degrees of freedom of that error.
        p: how often arms that are equally good differ at least so much, for each pair and need by itself.
    """

    value: Numbers
    error: Numbers
    freedom: Numbers
    p: Numbers


def differences(
    values: Numbers, pairs: Sequence[tuple[int, int]], *, untrained: Collection[int], images: Any, count: float
) -> Differences:
    """The differences of pairs of arms over seeds that all arms share.

    A difference may come from the seeds, or from the images that happened to be held out; its error has both parts.
    Three seeds tell little of how much one arm scatters, so the scatter is that of all trained arms together, or more
    where a pair scatters more, with so many fewer degrees of freedom.

    Args:
        values: accuracies (…, A, S, N) of arms, seeds and needs; at least two seeds.
        pairs: (first, second) arms by number.
        untrained: arms that are one model, whatever the seed.
        images: the part of each difference's variance that comes from the images (…, P, N), see `images_variance`.
        count: how many images there are.

    Source: Satterthwaite 1946, doi:10.2307/3002019, for the degrees of freedom of a sum of variances.
    """
    trained = [arm for arm in range(values.shape[-3]) if arm not in untrained]
    seeds = values.shape[-2]
    single, double = _scatter(values[..., trained, :, :])
    of_pairs = [_of_pair(values, pair, untrained, single=single, double=double) for pair in pairs]
    value, variance, freedom = (np.stack(parts, axis=-2) for parts in zip(*of_pairs, strict=True))
    images = np.broadcast_to(np.asarray(images, dtype=float), value.shape)
    total = variance / seeds + images
    own = _share(variance / seeds, total) ** 2 / freedom + _share(images, total) ** 2 / max(count - 1, 1)
    freedom = 1 / np.maximum(own, 1e-9)
    error = np.sqrt(total)
    ratio = np.where(error > 0, np.abs(value) / np.maximum(error, 1e-300), np.where(value == 0, 0.0, np.inf))
    return Differences(value, error, freedom, 2 * student().sf(ratio, freedom))


def images_variance(first: Numbers, second: Numbers) -> Numbers:
    """The part of the variance of a difference that comes from which images were held out, and that more seeds keep.

    Args:
        first, second: share of right answers (…, S, M) of two arms to each image, with each seed.

    Source: the variance of a mean over two crossed random factors, seeds and images, less what images and seeds share.
    """
    each = second - first
    seeds, images = each.shape[-2:]
    means = each.mean(axis=-2)
    among = means.var(axis=-1, ddof=1) if images > 1 else np.zeros(means.shape[:-1])
    within = ((each - means[..., None, :]) ** 2).sum(axis=(-2, -1)) / max(seeds - 1, 1) / images
    # No share is known better than to one image.
    least: Numbers = np.maximum(among - within / seeds, 1 / images) / images
    return least


def holm(p: Numbers) -> Numbers:
    """Chances adjusted for there being many: a false one is below 5% in at most 5% of trials. Over all of the last two axes.

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


def half_width(error: Any, freedom: Any, *, chance: float = LEVEL) -> Any:
    """Half of the width of an interval that misses the truth with this chance."""
    return error * student().ppf(1 - chance / 2, freedom)


def student() -> Any:
    """Student's t distribution.

    Raises:
        ImportError: scipy is not installed.
    """
    try:
        from scipy.stats import t
    except ImportError as error:
        raise ImportError("telling arms apart needs scipy: pip install 'robusttune[poc]'") from error
    return t


def pair_scatter(values: Numbers) -> Numbers:
    """The variance (…, N) of the difference of two trained arms from seed to seed, over all arms (…, A, S, N) together."""
    return _scatter(values)[1][0]


Scatter: TypeAlias = tuple[Numbers, Numbers]


def _scatter(values: Numbers) -> tuple[Scatter, Scatter]:
    """The variance (…, N) and its degrees of freedom, of an arm and of a difference of two, over all arms (…, A, S, N)."""
    arms, seeds = values.shape[-3], values.shape[-2]
    apart = values - values.mean(axis=-2, keepdims=True)
    shared = apart.mean(axis=-3, keepdims=True)
    freedom = (arms - 1) * (seeds - 1)
    rest = ((apart - shared) ** 2).sum(axis=(-3, -2)) / max(freedom, 1)
    common = (shared**2).sum(axis=(-3, -2)) / (seeds - 1)  # what a seed does to all arms alike, and rest / arms
    single = common + rest * (arms - 1) / arms
    parts = _share(common, single) ** 2 / (seeds - 1) + (1 - _share(common, single)) ** 2 / max(freedom, 1)
    return (single, 1 / parts), (2 * rest, np.full_like(rest, max(freedom, 1)))


def _of_pair(
    values: Numbers, pair: tuple[int, int], untrained: Collection[int], *, single: Scatter, double: Scatter
) -> tuple[Numbers, Numbers, Numbers]:
    """The difference (…, N) of a pair, its variance from seed to seed, and that one's degrees of freedom."""
    first, second = pair
    each = values[..., second, :, :] - values[..., first, :, :]
    seeds = each.shape[-2]
    own = each.var(axis=-2, ddof=1)
    if first in untrained and second in untrained:
        return each.mean(axis=-2), own, np.full_like(own, seeds - 1)
    pooled, freedom = single if first in untrained or second in untrained else double
    restless = np.maximum(np.where(pooled > 0, _share(own, pooled), 1.0).mean(axis=-1, keepdims=True), 1.0)
    variance = np.maximum(pooled * restless, own)
    known = _share(pooled, variance)
    parts = known**2 / freedom + (1 - known) ** 2 / (seeds - 1)
    return each.mean(axis=-2), variance, 1 / parts


def _share(part: Numbers, whole: Numbers) -> Numbers:
    """Part by whole, 1 where the whole is nothing."""
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), 1.0)
