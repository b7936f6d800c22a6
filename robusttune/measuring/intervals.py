"""Confidence intervals of proportions."""

import math

# The normal quantile of two-sided 95% intervals.
Z95 = 1.959963984540054


def wilson(successes: float, trials: float) -> tuple[float, float]:
    """Return the 95% score interval of a proportion.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.

    Example:
        >>> wilson(0, 10)
        (0.0, 0.2775...)
    """
    share = successes / trials
    spread = Z95 * math.sqrt(share * (1 - share) / trials + Z95**2 / (4 * trials**2))
    middle, scale = share + Z95**2 / (2 * trials), 1 + Z95**2 / trials
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
