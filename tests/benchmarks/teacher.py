"""The time of a step with a teacher that labels all images, beside the same step with true labels.

    python tests/benchmarks/teacher.py --rounds 7

Both are runs of `harden` on the same images, alternated; seconds are those of the processor, on one thread. Each round gives
a ratio; printed are their median and range. The look at the teacher's labels before the run is left out: a run of one step is
timed, too, and its time is subtracted.
"""

import argparse
import copy
import statistics
import time

import timm
import torch
from torch.utils.data import DataLoader, TensorDataset

import robusttune

IMAGES, BATCH = 1280, 128
HELD = [(torch.rand(2, 1, 32, 32), torch.zeros(2, dtype=torch.long))]  # attacks on these cost the same next to nothing
WAYS = {
    "pgd, 10 steps": {"attack": "pgd", "steps": 10},
    "fast": {"preset": "fast"},
}


def seconds(model, loader, **settings):
    """The seconds of the processor for the steps of one epoch but the first."""
    taken = []
    for steps in (1, len(loader)):
        twin = copy.deepcopy(model)
        began = time.process_time()
        robusttune.harden(
            twin, loader, norm="linf", eps=0.1, tasks=None, eps_ramp=False, tune=False, progress=False,
            epochs=1, max_steps=steps, val_loader=HELD, **settings,
        )  # fmt: skip
        taken.append(time.process_time() - began)
    return taken[1] - taken[0]


def main():
    """Print the ratio of both for each way of training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="test_resnet")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = timm.create_model(options.model, in_chans=1, num_classes=10).eval()
    images, labels = torch.rand(IMAGES, 1, 32, 32), torch.randint(10, (IMAGES,))
    true, alone = DataLoader(TensorDataset(images, labels), BATCH), DataLoader(TensorDataset(images), BATCH)
    for name, settings in WAYS.items():
        ratios = []
        for _ in range(options.rounds):
            base, taught = (seconds(model, loader, **settings) for loader in (true, alone))
            ratios.append(taught / base)
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(f"{name}: {statistics.median(ratios):.3f} ({spread}), {base / len(true):.3f} s a step", flush=True)


if __name__ == "__main__":
    main()
