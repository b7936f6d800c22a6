"""What all tests share: one thread, random numbers that no other test changes, a Hypothesis profile, and a pretend accelerator."""

import pretend_device
import pytest
import torch
from hypothesis import settings

# Programs that need packages of their own, or measure time: run by hand.
collect_ignore_glob = ["support/*", "benchmarks/*"]

torch.set_num_threads(1)
settings.register_profile("robusttune", deadline=None, max_examples=30, derandomize=True, print_blob=False)
settings.load_profile("robusttune")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Seed what draws weights without a generator, so that no test depends on those that ran before it."""
    torch.manual_seed(0)


def pytest_collection_finish(session):
    """Register the pretend accelerator before the first test, if any of them wants it."""
    wanted = any("accelerator" in getattr(item, "fixturenames", ()) for item in session.items)
    if wanted and pretend_device.reason_against() is None:
        pretend_device.registered(session.config.cache.mkdir("pretend_device"))


@pytest.fixture
def accelerator():
    """The pretend accelerator, which torch, and so robusttune, sees during this test."""
    if reason := pretend_device.reason_against():
        pytest.skip(reason)
    with pretend_device.available() as device:
        yield device


@pytest.fixture
def step_waits(accelerator):
    """Where the training steps of this test after the first wait for the pretend accelerator, as far as the test has come."""
    with pretend_device.watched_steps() as noted:
        yield noted
