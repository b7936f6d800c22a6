"""Confidence intervals of proportions, of the difference of two on the same trials, and of quantiles."""

import math
from collections.abc import Sequence
from itertools import accumulate
from statistics import NormalDist

# The normal quantile of two-sided 95% intervals.
Z95 = 1.959963984540054


def wilson(successes: float, trials: float, quantile: float = Z95) -> tuple[float, float]:
    """Return the score interval of a proportion, at 95% unless another normal quantile is passed.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.

    Example:
        >>> wilson(0, 10)
        (0.0, 0.2775...)
    """
    share = successes / trials
    spread = quantile * math.sqrt(share * (1 - share) / trials + quantile**2 / (4 * trials**2))
    middle, scale = share + quantile**2 / (2 * trials), 1 + quantile**2 / trials
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def smallest(proportions: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """Return the 95% interval of the smallest of several proportions, without knowing which one is the smallest.

    The smallest observed share is too low on average, because it is selected for being low. This interval contains the
    smallest proportion whenever each Bonferroni-corrected Wilson interval contains its own proportion.

    Args:
        proportions: successes and trials of each.

    Example:
        >>> smallest([(5, 10), (9, 10)])
        (0.2108..., 0.7891...)
    """
    quantile = NormalDist().inv_cdf(1 - 0.025 / len(proportions))
    lows, highs = zip(*(wilson(successes, trials, quantile) for successes, trials in proportions), strict=True)
    return min(lows), min(highs)


def paired_difference(only_first: int, only_second: int, trials: int) -> tuple[float, float]:
    """Return the 95% interval of the second proportion minus the first, both of the same trials.

    It is Wald's for matched pairs, after half a trial was added to each of the four cells.

    Args:
        only_first, only_second: the numbers of trials that only the first, and only the second, succeeded in.
        trials: the number of all trials.

    Source: Agresti and Min 2005, doi:10.1002/sim.1781.

    Example:
        >>> paired_difference(10, 40, 100)
        (0.1693..., 0.4189...)
    """
    first, second, total = only_first + 0.5, only_second + 0.5, trials + 2
    difference = (second - first) / total
    spread = Z95 * math.sqrt(max(0.0, first + second - (second - first) ** 2 / total)) / total
    return max(-1.0, difference - spread), min(1.0, difference + spread)


def ranks_around(share: float, count: int) -> tuple[int, int]:
    """Return the ranks, from 1, of the two values in a sorted sample between which a quantile lies at 95%.

    Rank 0 means that no value of the sample is a lower bound, and rank `count + 1` that none is an upper one.

    Args:
        share: the share of the values that the quantile is not below, such as 0.95; above 0 and below 1.
        count: the number of values in the sample.

    Source: Thompson 1936, Annals of Mathematical Statistics 7, 122-128.

    Example:
        >>> ranks_around(0.95, 100), ranks_around(0.95, 20)
        ((90, 100), (17, 21))
    """
    below = [0.0, *accumulate(binomial(hits, count, share) for hits in range(count + 1))]
    lower = max(rank for rank in range(count + 1) if below[rank] < 0.025)
    upper = next((rank for rank in range(count + 1) if below[rank] >= 0.975), count + 1)
    return lower, upper


def binomial(hits: int, trials: int, share: float) -> float:
    """Return the binomial probability of exactly this many hits; each trial hits with a share above 0 and below 1."""
    ways = math.lgamma(trials + 1) - math.lgamma(hits + 1) - math.lgamma(trials - hits + 1)
    return math.exp(ways + hits * math.log(share) + (trials - hits) * math.log1p(-share))
