"""Alpha spending: significance levels of a group-sequential test, which is repeated (at "looks") while seeds are added."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from robusttune.trial.decision.significance import Numbers, normal

POINTS = 401  # of the grid on which densities are integrated
HALVINGS = 60
FARTHEST = 12.0  # standard errors


def spent(level: float, share: float) -> float:
    """Alpha-spending function: return the part of a two-sided level that may be spent at a share of all information.

    Little is spent early: a difference must be large to end a trial at its first look, and the last look is nearly as strict
    as a single test.

    Args:
        level: the level of the whole test, such as 0.05.
        share: the share of the information, above 0 and at most 1.

    Source: Lan and DeMets 1983, doi:10.1093/biomet/70.3.659, the function that is close to O'Brien and Fleming's bounds, half of
        the level on each side.

    Example:
        >>> round(spent(0.05, 0.5), 4), round(spent(0.05, 1.0), 4)
        (0.0031, 0.05)
    """
    return float(4 * normal().sf(normal().isf(level / 4) / np.sqrt(share)))


def nominal_levels(level: float, shares: Sequence[float]) -> list[float]:
    """Return the nominal level of each look: a p-value below it is significant at that look.

    If there is no difference, the probability that any look finds one is `level`.

    Args:
        level: two-sided, of all looks together.
        shares: the shares of the information at each look, rising, the last at most 1; below 1, some of the level is kept for later.

    Source: Armitage, McPherson and Rowe 1969, doi:10.2307/2343787, for the integral over the looks before.

    Example:
        >>> [round(each, 5) for each in nominal_levels(0.05, [0.25, 0.5, 0.75, 1.0])]
        [1e-05, 0.00305, 0.01832, 0.044]
    """
    return list(_levels(level, tuple(round(float(share), 3) for share in shares)))


@lru_cache(maxsize=1024)
def _levels(level: float, shares: tuple[float, ...]) -> tuple[float, ...]:
    """Find each look's bound from the first to the last; a look without new information has the level 0."""
    found, used, before = list[float](), 0.0, 0.0
    # Values of the test statistic while no bound was crossed, and their probabilities.
    grid, weights = np.zeros(1), np.ones(1)
    for share in shares:
        step, root = np.sqrt(share - before) if share > before else 0.0, np.sqrt(share)
        increment = spent(level, share) - used
        if step == 0 or increment <= 0:
            found.append(0.0)
            continue
        bound = _bound(grid, weights, step, root, increment)
        found.append(float(2 * normal().sf(bound)))
        used, before = spent(level, share), share
        grid, weights = _carried(grid, weights, step, bound * root)
    return tuple(found)


def _bound(grid: Numbers, weights: Numbers, step: float, root: float, increment: float) -> float:
    """Return the bound, in standard errors, that is first crossed at this look with the probability `increment`."""
    low, high = 0.0, FARTHEST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        crossed = normal().sf((middle * root - grid) / step) + normal().cdf((-middle * root - grid) / step)
        low, high = (middle, high) if float((weights * crossed).sum()) > increment else (low, middle)
    return high


def _carried(grid: Numbers, weights: Numbers, step: float, edge: float) -> tuple[Numbers, Numbers]:
    """Return the grid between the bounds of a look, and the chance of each of its points, by Simpson's rule."""
    points = np.linspace(-edge, edge, POINTS)
    simpson = np.full(POINTS, 2.0)
    simpson[1::2], simpson[[0, -1]] = 4.0, 1.0
    density: Numbers = normal().pdf((points[:, None] - grid) / step) / step
    return points, density @ weights * simpson * (points[1] - points[0]) / 3
