"""Whether arms differ: false alarms and power over simulated trials whose truth is known."""

import numpy as np
import pytest

from robusttune.trial.decision.significance import differences, half_width, holm, images_variance

pytest.importorskip("scipy")
ARMS, METRICS, IMAGES = 8, 11, 1000
# Everything beside doing nothing (0), and beside adversarial training without pretext task (1).
PAIRS = [(0, arm) for arm in range(1, ARMS)] + [(1, arm) for arm in range(2, ARMS)]


def accuracies(trials, seeds, generator, *, level=0.6, better=0.0, scatter=None, shared=0.0, images=IMAGES):
    """Accuracies (R,A,S,N): seeds scatter by a point, images are binomial; arm 4 is better; arm 0 is one model."""
    scatter = np.full(ARMS, 0.01) if scatter is None else np.asarray(scatter)
    truth = np.full((trials, ARMS, seeds, METRICS), level)
    truth[:, 4] += better
    truth += scatter[:, None, None] * generator.standard_normal(truth.shape)
    truth += shared * generator.standard_normal((trials, 1, seeds, METRICS))
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


def test_an_arm_that_is_five_points_better_is_found_more_often_with_more_seeds():
    found = {}
    for seeds in (3, 5):
        real = called_real(accuracies(500, seeds, np.random.default_rng(seeds), better=0.05, images=3000), 3000)
        found[seeds] = real[:, PAIRS.index((1, 4))].mean()
    assert 0.25 < found[3] < 0.5
    assert found[5] > 0.7


def test_an_interval_of_a_difference_holds_the_truth_as_often_as_it_says():
    values = accuracies(1000, 3, np.random.default_rng(2), better=0.05)
    found = differences(values, [(1, 4), (1, 5)], untrained={0}, images=1 / IMAGES**2, count=IMAGES)
    off = np.abs(found.value - np.array([0.05, 0.0])[:, None])
    assert 0.94 < (off < half_width(found.error, found.freedom)).mean() < 0.99


def test_two_arms_alone_are_a_paired_t_test():
    from scipy.stats import ttest_rel

    values = np.random.default_rng(0).random((2, 5, 3))
    found = differences(values, [(0, 1)], untrained=(), images=0.0, count=100)
    np.testing.assert_allclose(found.p[0], ttest_rel(values[1], values[0]).pvalue)
    np.testing.assert_allclose(found.value[0], (values[1] - values[0]).mean(axis=0))


def test_beside_one_model_that_does_not_train_it_is_a_t_test_of_the_other():
    from scipy.stats import ttest_1samp

    values = np.random.default_rng(0).random((2, 4, 3))
    values[0] = values[0, 0]
    found = differences(values, [(0, 1)], untrained={0}, images=0.0, count=100)
    np.testing.assert_allclose(found.p[0], [ttest_1samp(values[1, :, n], values[0, 0, n]).pvalue for n in range(3)])


def test_no_scatter_at_all_is_no_error():
    values = np.zeros((3, 3, 2))
    values[2, :, 1] = 0.5
    found = differences(values, [(0, 1), (1, 2)], untrained={0}, images=0.0, count=100)
    np.testing.assert_array_equal(found.p, [[1, 1], [1, 0]])


def test_what_images_add_is_left_over_by_the_seeds():
    generator = np.random.default_rng(0)
    lasting = np.broadcast_to(generator.standard_normal(1000), (4, 1000))
    anew = generator.standard_normal((4, 1000))
    assert images_variance(np.zeros((4, 1000)), lasting) == pytest.approx(lasting[0].var(ddof=1) / 1000)
    assert images_variance(np.zeros((4, 1000)), lasting + anew) == pytest.approx(1 / 1000, rel=0.15)
    assert images_variance(np.zeros((4, 1000)), anew) < 0.1 / 1000
    assert images_variance(np.zeros((4, 10)), np.zeros((4, 10))) == 1 / 10**2


def test_holm_is_as_by_hand():
    np.testing.assert_allclose(holm(np.array([[[0.01, 0.04], [0.03, 0.005]]])), [[[0.03, 0.06], [0.06, 0.02]]])
