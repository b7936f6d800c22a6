"""Levels of several looks: those that were published, and their chance of a false alarm."""

import numpy as np
import pytest
from scipy.stats import norm

from robusttune.trial.decision.looks import nominal_levels, spent


def test_the_bounds_are_those_that_were_published():
    # Four looks, evenly apart, 5% on both sides: the tables of group-sequential designs (gsDesign's sfLDOF).
    bounds = [norm.isf(level / 2) for level in nominal_levels(0.05, [0.25, 0.5, 0.75, 1.0])]
    assert bounds == pytest.approx([4.3326, 2.9631, 2.3590, 2.0141], abs=2e-4)


def test_one_look_is_an_ordinary_test_and_information_that_does_not_grow_has_nothing_to_spend():
    assert nominal_levels(0.05, [1.0]) == pytest.approx([0.05])
    first, second = nominal_levels(0.05, [1.0, 1.0])
    assert first == pytest.approx(0.05)
    assert second == 0


@pytest.mark.parametrize("shares", [[0.3, 0.6, 1.0], [0.8, 0.9, 0.95, 1.0], [0.5, 0.8]])
def test_among_equal_arms_a_false_alarm_is_as_rare_as_the_level_says(shares):
    steps = np.diff([0.0, *shares])
    walks = (np.sqrt(steps) * np.random.default_rng(0).standard_normal((200_000, len(shares)))).cumsum(axis=1)
    p = 2 * norm.sf(np.abs(walks) / np.sqrt(shares))
    alarms = (p < nominal_levels(0.05, shares)).any(axis=1).mean()
    assert alarms == pytest.approx(spent(0.05, shares[-1]), abs=0.002)
