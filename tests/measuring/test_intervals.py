"""Intervals of an accuracy, and of a quantile."""

import math

import pytest

from robusttune.measuring.intervals import ranks_around, wilson
from robusttune.measuring.record import accuracy


@pytest.mark.parametrize(
    ("right", "of", "low", "high"), [(0, 10, 0, 0.2775), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)]
)
def test_intervals_are_those_of_the_tables(right, of, low, high):
    """The last is the example of Newcombe 1998, table I."""
    assert wilson(right, of) == pytest.approx((low, high), abs=1e-4)


def test_the_interval_narrows_with_the_images():
    widths = [math.dist(*([end] for end in accuracy("clean", n // 2, n).interval)) for n in (10, 100, 1000)]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("count", [1, 20, 71, 72, 1000])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_ranks_are_binomial_quantiles(share, count):
    binom = pytest.importorskip("scipy.stats").binom
    assert ranks_around(share, count) == (binom.ppf(0.025, count, share), binom.ppf(0.975, count, share) + 1)
