"""Random states are seeded inside and untouched outside."""

import multiprocessing
import os
import random
import threading

import numpy as np
import pytest
import torch
from contexts import used_and_broken
from torch.utils.data import DataLoader, RandomSampler

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


def test_the_generators_of_loaders_are_as_they_were_after_use_and_after_an_error():
    order, draws = torch.Generator().manual_seed(3), torch.Generator().manual_seed(4)
    loader = DataLoader(range(8), sampler=RandomSampler(range(8), generator=draws), generator=order)
    before = order.get_state(), draws.get_state()
    used_and_broken(lambda: randomness.rewound(None, loader), lambda: list(loader))
    assert torch.equal(order.get_state(), before[0])
    assert torch.equal(draws.get_state(), before[1])


@pytest.mark.parametrize("seed", [0, -1, 2**32, 2**62])
def test_any_seed_will_do(seed):
    found = []
    for _ in range(2):
        with randomness.own_randomness(seed):
            found.append(some_draws())
    assert found[0] == found[1]


def test_threads_enter_one_after_the_other_and_one_that_waits_says_so(monkeypatch, caplog):
    monkeypatch.setattr(randomness, "PATIENCE", 0.01)
    inside, order = threading.Event(), []

    def second():
        inside.wait()
        with randomness.own_randomness(2):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with randomness.own_randomness(1):
        inside.set()
        with randomness.own_randomness(3):  # of an attack inside a run
            thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert "another thread of this process is in a run" in caplog.text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_process_that_was_forked_while_a_thread_was_inside_does_not_wait_for_it():
    inside, over = threading.Event(), threading.Event()

    def another():
        with randomness.own_randomness(1):
            inside.set()
            over.wait()

    thread = threading.Thread(target=another)
    thread.start()
    inside.wait()
    child = multiprocessing.get_context("fork").Process(target=randomness.own_randomness(2).__enter__)
    child.start()
    child.join(30)
    over.set()
    thread.join()
    assert child.exitcode == 0
