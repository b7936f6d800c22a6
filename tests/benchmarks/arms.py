"""False alarms and power of several significance tests, among equal arms and where one arm is better.

    python tests/benchmarks/arms.py --trials 1000

Trials are simulated image by image (tests/support/simulated.py): eight arms, eleven metrics, seeds that scatter by a point, and
images of which some are hard for all arms, and some for one arm with every seed.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from simulated import ARMS, answers, equal

from robusttune.trial.decision.significance import differences, holm, images_variance, student

COUNT = len(ARMS)
PAIRS = [(0, arm) for arm in range(1, COUNT)] + [(2, arm) for arm in range(1, COUNT) if arm != 2]
DRAWS = 200


def ours(right):
    """Return the library's p-values."""
    each = right.swapaxes(1, 2)
    of_images = np.stack([images_variance(each[first], each[second]) for first, second in PAIRS])
    return differences(right.mean(axis=-1), PAIRS, untrained={0}, images=of_images, count=right.shape[-1]).p


def without_images(right):
    """Return the library's p-values without the part of the variance that comes from the choice of images."""
    return differences(right.mean(axis=-1), PAIRS, untrained={0}, images=0.0, count=right.shape[-1]).p


def own_scatter(right):
    """Return p-values of Student's paired t over seeds, with the scatter of each single pair."""
    values = right.mean(axis=-1)
    each = np.stack([values[second] - values[first] for first, second in PAIRS])
    error = each.std(axis=1, ddof=1) / np.sqrt(each.shape[1])
    return 2 * student().sf(np.abs(each.mean(axis=1)) / np.maximum(error, 1e-12), each.shape[1] - 1)


def bootstrap(right):
    """Return p-values of a hierarchical bootstrap (seeds, then images) with a normal distribution."""
    generator = np.random.default_rng(0)
    _, seeds, _, count = right.shape
    of_seeds = generator.multinomial(seeds, [1 / seeds] * seeds, DRAWS) / seeds
    of_images = generator.multinomial(count, [1 / count] * count, DRAWS) / count
    drawn = np.einsum("asnm,bm->asnb", right, of_images, optimize=True)
    means = np.einsum("asnb,bs->anb", drawn, of_seeds)
    each = np.stack([means[second] - means[first] for first, second in PAIRS])
    value = np.stack([right[second].mean((0, 2)) - right[first].mean((0, 2)) for first, second in PAIRS])
    return 2 * student().sf(np.abs(value) / np.maximum(each.std(axis=-1), 1e-12), 1e9)


WAYS = {"library": ours, "library, images left out": without_images, "own scatter": own_scatter, "bootstrap": bootstrap}


def main():
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--images", type=int, nargs="+", default=[500, 2000])
    options = parser.parse_args()
    print("| seeds | images | way | false alarms | finds 3 points | finds 5 points |")
    print("|---|---|---|---|---|---|")
    for seeds in options.seeds:
        for images in options.images:
            found = {better: rates(options.trials, seeds, images, better) for better in (0.0, 0.03, 0.05)}
            for way in WAYS:
                powers = " | ".join(f"{100 * found[better][way][1]:.0f}%" for better in (0.03, 0.05))
                print(f"| {seeds} | {images} | {way} | {100 * found[0.0][way][0]:.1f}% | {powers} |", flush=True)


def rates(trials, seeds, images, better):
    """Return for each way the shares of trials with any significant difference, and with one of the better arm over arm 2."""
    generator, truth = np.random.default_rng(1), equal()
    truth[4] += better
    row = PAIRS.index((2, 4))
    called = {way: [] for way in WAYS}
    for _ in range(trials):
        right = answers(truth, seeds=seeds, images=images, generator=generator).astype(np.float32)
        for way, p in WAYS.items():
            real = holm(p(right)) < 0.05
            called[way].append((real.any(), real[row].mean()))
    return {way: np.array(rows, dtype=float).mean(axis=0) for way, rows in called.items()}


if __name__ == "__main__":
    main()
