"""Whether arms differ: false alarms and power over simulated trials whose truth is known."""

import numpy as np
import pytest

from robusttune.differences import differences, holm

pytest.importorskip("scipy")
ARMS, NEEDS, IMAGES = 8, 11, 1000
# Everything beside doing nothing (0), and beside adversarial training without pretext task (1).
PAIRS = [(0, arm) for arm in range(1, ARMS)] + [(1, arm) for arm in range(2, ARMS)]


def accuracies(trials, seeds, generator, *, level=0.6, better=0.0, scatter=None, shared=0.0, images=IMAGES):
    """Accuracies (R,A,S,N): seeds scatter by a point, images are binomial; arm 4 is better; arm 0 is one model."""
    scatter = np.full(ARMS, 0.01) if scatter is None else np.asarray(scatter)
    truth = np.full((trials, ARMS, seeds, NEEDS), level)
    truth[:, 4] += better
    truth += scatter[:, None, None] * generator.standard_normal(truth.shape)
    truth += shared * generator.standard_normal((trials, 1, seeds, NEEDS))
    truth[:, 0] = level
    right = generator.binomial(images, truth.clip(0, 1))
    right[:, 0] = right[:, 0, :1]
    return right / images


def called_real(values, images=IMAGES):
    """Which comparisons (R,P,N) are called real."""
    # Trained arms draw their images anew with every seed here; the one model that is not trained keeps its own.
    of_images = np.array([0.24 / images if first == 0 else 1 / images**2 for first, _ in PAIRS])[:, None]
    found = differences(values, PAIRS, untrained={0}, images=of_images, count=images)
    return holm(found.p) < 0.05


@pytest.mark.parametrize("seeds", [3, 4, 5])
def test_among_equal_arms_at_most_one_report_in_twenty_calls_a_difference_real(seeds):
    generator = np.random.default_rng(seeds)
    false = called_real(accuracies(2000, seeds, generator)).any(axis=(1, 2)).mean()
    assert false <= 0.05


@pytest.mark.parametrize(
    ("scatter", "shared"),
    [
        ([0, *[0.01] * 6, 0.02], 0.0),
        ([0, *[0.005] * 6, 0.02], 0.0),
        ([0, 0.02, *[0.01] * 6], 0.0),
        ([0.0, *[0.01] * 7], 0.01),
    ],
    ids=[
        "one arm scatters twice as much",
        "four times",
        "the baseline scatters twice as much",
        "seeds are good for all arms",
    ],
)
def test_false_alarms_stay_rare_where_arms_scatter_differently(scatter, shared):
    generator = np.random.default_rng(0)
    values = accuracies(1000, 3, generator, scatter=scatter, shared=shared)
    assert called_real(values).any(axis=(1, 2)).mean() <= 0.05
