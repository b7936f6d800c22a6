"""Ordinary training, PGD-10 as it is customary, the default, and other ways: one table over seeds.

    python examples/compare.py                                     # Fashion-MNIST where installed, else digits
    python examples/compare.py --norm linf --model test_vit --arms ordinary plain joint --seeds 1

The arms none, separate and joint are the three ways in which pretext tasks meet the adversary, beside PGD-10, as the default of
before had it.

Every arm of a seed starts from the same ordinarily trained model and takes the same number of epochs. Robust accuracy
is the worst case over 50 steps of APGD on the cross-entropy and on the margin, past the training radius.
"""

import argparse
import copy
import json
import time
from functools import partial
from pathlib import Path
from statistics import mean

import torch
from images import FASHION_MNIST, SIDE, loaders, shape_and_classes
from ordinary import new_model, train

import robusttune
from robusttune.evaluations.sweep import sweep

EPS = {"l2": 1.0, "linf": 0.1}
MULTIPLES = (0.0, 0.5, 1.0, 1.5, 2.0)
ARMS = {
    "ordinary": None,
    "standard": {},
    "thorough": {"preset": "thorough"},
    "plain": {"preset": "joint", "tasks": None},
    "none": {"preset": "joint", "attack_tasks": "none"},
    "separate": {"preset": "joint", "attack_tasks": "separate"},
    "joint": {"preset": "joint", "attack_tasks": "joint"},
    "single step": {"preset": "joint", "tasks": None, "attack": "nfgsm"},
    "trades": {"preset": "joint", "tasks": None, "objective": "trades"},
    "awp": {"preset": "joint", "tasks": None, "awp": 0.005},
}
DEFAULT = ("ordinary", "plain", "standard")


def main() -> None:
    """Train every arm with every seed, print the table, save the numbers."""
    options = arguments()
    eps = EPS[options.norm] if options.eps is None else options.eps
    training, testing = loaders(options.data, train=options.train, test=options.test)
    rows = []
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        channels, classes = shape_and_classes(training)
        start = new_model(options.model, channels, classes, SIDE)
        train(start, training, options.ordinary_epochs, progress=options.progress)
        for arm in options.arms:
            rows.append(
                {"arm": arm, "seed": seed, **run(arm, copy.deepcopy(start), training, testing, options, eps, seed)}
            )
            print(rows[-1], flush=True)
    text = table(rows, options, eps)
    print(text)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    name = f"{options.data}-{options.model}-{options.norm}".replace("/", "_")
    (out / f"{name}.md").write_text(text + "\n")
    (out / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")


def run(
    arm: str,
    model: torch.nn.Module,
    training: object,
    testing: object,
    options: argparse.Namespace,
    eps: float,
    seed: int,
) -> dict:
    """Seconds of training and the accuracy at each radius."""
    began = time.perf_counter()
    if ARMS[arm] is not None:
        settings = {"norm": options.norm, "eps": eps, "epochs": options.epochs, "lr": options.lr, "seed": seed}
        robusttune.harden(model, training, progress=options.progress, **settings, **ARMS[arm])
    seconds = time.perf_counter() - began
    measure = partial(
        sweep, attack=options.attack, norms=[options.norm], eps=[multiple * eps for multiple in MULTIPLES]
    )
    records = robusttune.evaluate(model, testing, measure, norm=options.norm, eps=eps, progress=options.progress)
    return {"seconds": seconds, "images": records[0].images, "accuracy": [record.value for record in records]}


def table(rows: list[dict], options: argparse.Namespace, eps: float) -> str:
    """Markdown: the mean over seeds with the smallest and largest beside it."""
    head = ["arm", "seconds", *(f"eps {multiple * eps:g}" for multiple in MULTIPLES)]
    setting = f"{options.model}, {options.data}, {options.norm} trained at eps {eps:g}, {rows[0]['images']} test images, {options.seeds} seed(s)"
    lines = [setting, "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for arm in options.arms:
        own = [row for row in rows if row["arm"] == arm]
        columns = zip(*(row["accuracy"] for row in own), strict=True)
        seconds = f"{mean(row['seconds'] for row in own):.0f}"
        lines.append("| " + " | ".join([arm, seconds, *map(spread, columns)]) + " |")
    return "\n".join(lines)


def spread(values: tuple[float, ...]) -> str:
    """The mean in percent, and the range if there are several values."""
    shown = f"{100 * mean(values):.1f}"
    return shown if len(values) == 1 else f"{shown} ({100 * min(values):.1f}–{100 * max(values):.1f})"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="fashion-mnist" if FASHION_MNIST.exists() else "digits")
    parser.add_argument("--model", default="test_resnet", help="any timm model")
    parser.add_argument("--norm", default="l2", choices=sorted(EPS))
    parser.add_argument("--eps", type=float, help=f"radius in pixels on [0,1] (default: {EPS})")
    parser.add_argument("--arms", nargs="+", default=DEFAULT, choices=list(ARMS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3, help="of hardening")
    parser.add_argument("--ordinary-epochs", type=int, default=4, help="of ordinary training before it")
    parser.add_argument("--lr", type=float, help="of hardening (default: by the backbone)")
    parser.add_argument("--train", type=int, default=10_000, help="training images")
    parser.add_argument("--test", type=int, default=500, help="test images")
    parser.add_argument("--attack", default="apgd", help="of the evaluation, with 50 steps")
    parser.add_argument("--out", default="runs/compare")
    parser.add_argument("--progress", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
