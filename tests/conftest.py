"""What all tests share: one thread, random numbers and a Hypothesis profile that are the same on every machine and in any order."""

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
