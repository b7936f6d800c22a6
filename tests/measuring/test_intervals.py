"""Intervals of an accuracy, and of a quantile."""

import math

import numpy as np
import pytest

from robusttune.measuring.intervals import ranks_around, smallest, wilson
from robusttune.measuring.record import accuracy, balanced


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


@pytest.mark.parametrize(
    ("shares", "images"),
    [([0.9] * 100, [10] * 100), ([0.95] * 10, [20] * 10), ([0.9, 0.9], [1000, 10]), ([0.7] * 3, [50] * 3)],
)
def test_a_balanced_accuracy_lies_in_its_interval_as_often_as_it_says(shares, images):
    draws = np.random.default_rng(0).binomial(images, shares, size=(500, len(images)))
    found = [balanced("clean", list(zip(right, images, strict=True))).interval for right in draws.tolist()]
    truth = np.mean(shares)
    assert np.mean([low <= truth <= high for low, high in found]) >= 0.93
    assert np.mean([high < truth for _, high in found]) <= 0.06


@pytest.mark.parametrize(
    ("shares", "images"),
    [
        ([0.6] * 10, [100] * 10),
        ([0.7] * 100, [20] * 100),
        ([0.5, *[0.8] * 9], [100] * 10),
        ([0.55, 0.6, 0.9], [400, 50, 9]),
    ],
)
def test_the_share_of_the_worst_class_lies_in_its_interval_as_often_as_it_says(shares, images):
    draws = np.random.default_rng(0).binomial(images, shares, size=(500, len(images)))
    found = [smallest(list(zip(right, images, strict=True))) for right in draws.tolist()]
    assert np.mean([low <= min(shares) <= high for low, high in found]) >= 0.95
    assert all(low <= (right / np.array(images)).min() <= high for (low, high), right in zip(found, draws, strict=True))


@pytest.mark.parametrize(("classes", "images", "share", "held"), [(10, 100, 0.6, 0.76), (100, 20, 0.7, 0.17)])
def test_an_interval_of_the_worst_class_alone_misses_its_share(classes, images, share, held):
    """With classes that are alike, the share of the worst in a sample is too small."""
    draws = np.random.default_rng(0).binomial(images, share, size=(2000, classes)).min(1)
    within = [low <= share <= high for low, high in (wilson(int(right), images) for right in draws)]
    assert np.mean(within) == pytest.approx(held, abs=0.03)


def test_the_interval_of_one_class_is_wilsons():
    assert smallest([(7, 10)]) == pytest.approx(wilson(7, 10))
