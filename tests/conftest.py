"""What all tests share: one thread, and a Hypothesis profile that is the same on every machine."""

import torch
from hypothesis import settings

# Programs that need packages of their own, or measure time: run by hand.
collect_ignore_glob = ["support/*", "benchmarks/*"]

torch.set_num_threads(1)
settings.register_profile("robusttune", deadline=None, max_examples=30, derandomize=True, print_blob=False)
settings.load_profile("robusttune")
