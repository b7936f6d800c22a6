"""Random states are seeded inside and untouched outside."""

import random

import numpy as np
import pytest
import torch
from contexts import used_and_broken

from robusttune.run import randomness


def all_states():
    return torch.get_rng_state().tolist(), random.getstate(), [str(part) for part in np.random.get_state()]


def some_draws():
    return torch.rand(2).tolist(), random.random(), np.random.random(2).tolist()


def test_random_states_are_seeded_within_and_untouched_outside():
    before = all_states()
    used_and_broken(lambda: randomness.own_randomness(0), some_draws)
    assert all_states() == before
    found = []
    for seed in (1, 1, 2):
        with randomness.own_randomness(seed):
            found.append(some_draws())
    assert found[0] == found[1]
    assert all(one != other for one, other in zip(found[0], found[2], strict=True))
    assert all_states() == before


@pytest.mark.parametrize("seed", [0, -1, 2**32, 2**62])
def test_any_seed_will_do(seed):
    found = []
    for _ in range(2):
        with randomness.own_randomness(seed):
            found.append(some_draws())
    assert found[0] == found[1]
