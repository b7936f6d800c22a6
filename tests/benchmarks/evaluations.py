"""How near estimates of evaluations come: what `estimate(which=…)` says beside what `evaluate` took.

    OMP_NUM_THREADS=1 python tests/benchmarks/evaluations.py

The model is timm's `test_resnet`, trained for six epochs and hardened for two on scikit-learn's digits at 32 px. Both columns are
seconds of the processor on one thread: the clock that estimates read is replaced by that of the processor.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from images import SIDE, loaders
from ordinary import new_model, train

import robusttune

IMAGES = {
    "clean": 128,
    "noise": 128,
    "corruptions": 128,
    "quick": 128,
    "strong": 128,
    "sweep": 128,
    "autoattack": 32,
    "sanity": 32,
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--which", nargs="+", default=list(IMAGES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    time.perf_counter = time.process_time
    training, testing = loaders("digits", batch=64)
    model = train(new_model("test_resnet", 1, 10, SIDE), training, 6, progress=False)
    robusttune.harden(model, training, norm="linf", preset="fast", epochs=2, tune=False, progress=False)
    print("| evaluation | images | estimated seconds | measured seconds |\n|---|---|---|---|")
    for name in options.which:
        settings = {"norm": "linf", "subset": IMAGES.get(name, 32)}
        expected = robusttune.estimate(model, testing, which=name, **settings)
        began = time.process_time()
        robusttune.evaluate(model, testing, name, progress=False, **settings)
        taken, words = time.process_time() - began, "at most " * expected.at_most
        print(f"| `{name}` | {settings['subset']} | {words}{expected.seconds:.2g} | {taken:.2g} |", flush=True)


if __name__ == "__main__":
    main()
