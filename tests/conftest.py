"""What all tests share: one thread, random numbers that no other test changes, a Hypothesis profile, and a pretend accelerator."""

import tempfile
from collections import Counter

import pretend_device
import pytest
import torch
from hypothesis import settings

from robusttune.training import profiling

# Programs that need packages of their own, or measure time: run by hand.
collect_ignore_glob = ["support/*", "benchmarks/*"]

torch.set_num_threads(1)
profiling.ENOUGH = 0.0  # estimates take the least number of steps, not up to 4 seconds of them
settings.register_profile("robusttune", deadline=None, max_examples=30, derandomize=True, print_blob=False)
settings.load_profile("robusttune")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Seed what draws weights without a generator, so that no test depends on those that ran before it."""
    # Without an accelerator, torch.manual_seed keeps a traceback for each kind of device, which takes longer than many a test.
    (torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed)(0)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session):
    """Register the pretend accelerator, which must be known before the first backward pass, and modules of tests may make one."""
    controls = session.config.getoption("numprocesses", None) and not hasattr(session.config, "workerinput")
    cache = getattr(session.config, "cache", None)
    if not controls and pretend_device.reason_against() is None:
        pretend_device.registered(cache.mkdir("pretend_device") if cache else tempfile.mkdtemp())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark all but the first cases of tests that are marked with `sample` as slow."""
    seen = Counter()
    for item in items:
        sample = item.get_closest_marker("sample")
        if sample is not None:
            test = item.nodeid.partition("[")[0]
            seen[test] += 1
            if seen[test] > sample.args[0]:
                item.add_marker(pytest.mark.slow)


@pytest.fixture
def accelerator():
    """The pretend accelerator, which torch, and so robusttune, sees during this test."""
    if reason := pretend_device.reason_against():
        pytest.skip(reason)
    with pretend_device.available() as device:
        torch.manual_seed(0)
        yield device


@pytest.fixture
def step_waits(accelerator):
    """Where the training steps of this test after the first wait for the pretend accelerator, as far as the test has come."""
    with pretend_device.watched_steps() as noted:
        yield noted
