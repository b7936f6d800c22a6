"""What adversarial training does to natural corruptions, above all to fog and contrast, and what AugMix gives back.

    python examples/corruption_study.py                            # Fashion-MNIST where installed, else digits

Every arm of a seed starts from the same ordinarily trained model and trains as many epochs, all with crop and flip. The
table has the accuracy on unchanged images, the mean over the fifteen corruptions at five severities, over each family,
on fog and contrast alone, and under attack (APGD, 50 steps, two losses) at half of the larger training radius.
"""

import argparse
import copy
import json
import time
from functools import partial
from pathlib import Path
from statistics import mean

import torch
from compare import EPS, spread
from images import FASHION_MNIST, SIDE, loaders, shape_and_classes
from ordinary import new_model, train

import robusttune
from robusttune.evaluations.sweep import sweep

PLAIN = {"eps": 0.0, "steps": 1, "norm": "l2", "eps_ramp": False}
ARMS = {
    "no more training": None,
    "crop and flip": {**PLAIN, "augment": "standard"},
    "AugMix": {**PLAIN, "augment": "augmix"},
    "PRIME": {**PLAIN, "augment": "prime"},
    "noise": {**PLAIN, "augment": "noise"},
    "linf": {"norm": "linf", "eps": EPS["linf"], "augment": "standard"},
    "linf, AugMix": {"norm": "linf", "eps": EPS["linf"], "augment": "augmix"},
    "l2": {"norm": "l2", "eps": EPS["l2"], "augment": "standard"},
    "l2, AugMix": {"norm": "l2", "eps": EPS["l2"], "augment": "augmix"},
    "small l2": {"purpose": "corruptions", "augment": "standard"},
    "small l2, AugMix, PGD-10": {"purpose": "corruptions"},
    'the same, by today\'s default (purpose="corruptions")': {"preset": "standard", "purpose": "corruptions"},
}
COLUMNS = ("clean", "all", "noise", "blur", "weather", "digital", "fog", "contrast", "l2 attack", "linf attack")


def main() -> None:
    """Train every arm with every seed, print the table, save the numbers."""
    options = arguments()
    training, testing = loaders(options.data, train=options.train, test=options.test)
    rows = []
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        channels, classes = shape_and_classes(training)
        start = new_model(options.model, channels, classes, SIDE)
        train(start, training, options.ordinary_epochs, progress=options.progress)
        for arm, settings in ((arm, ARMS[arm]) for arm in options.arms):
            model, began = copy.deepcopy(start), time.perf_counter()
            if settings is not None:
                shared = {
                    "preset": "joint",
                    "tasks": None,
                    "epochs": options.epochs,
                    "seed": seed,
                    "progress": options.progress,
                }
                robusttune.harden(model, training, **shared | settings)
            seconds = time.perf_counter() - began
            rows.append({"arm": arm, "seed": seed, "seconds": seconds, **measured(model, testing, options)})
            print(rows[-1], flush=True)
            save(rows, options)
    print(table(rows, options))


def measured(model: torch.nn.Module, testing: object, options: argparse.Namespace) -> dict:
    """The accuracy in each column."""
    attacks = [partial(sweep, norms=[norm], eps=[eps / 2]) for norm, eps in EPS.items()]
    records = robusttune.evaluate(model, testing, ["clean", "corruptions", *attacks], progress=options.progress)
    means = [record for record in records.where("corruptions") if "severity" not in record.setting]
    named = {record.setting.get("over", record.setting.get("corruption")): record.value for record in means}
    named["all"] = next(
        record.value for record in records.where("corruptions", over="all") if record.metric == "accuracy"
    )
    robust = {f"{record.setting['norm']} attack": record.value for record in records.where("sweep")}
    return {
        "images": records[0].images,
        "protocol": means[0].setting["protocol"],
        "clean": records[0].value,
        **named,
        **robust,
    }


def save(rows: list[dict], options: argparse.Namespace) -> None:
    """The numbers and the table, after each arm."""
    options.out.mkdir(parents=True, exist_ok=True)
    name = f"corruptions-{options.data}-{options.model}".replace("/", "_")
    (options.out / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
    (options.out / f"{name}.md").write_text(table(rows, options) + "\n")


def table(rows: list[dict], options: argparse.Namespace) -> str:
    """Markdown: the mean over seeds with the smallest and largest beside it."""
    seeds = len({row["seed"] for row in rows})
    setting = (
        f"{options.model}, {options.data}, {rows[0]['images']} test images, {seeds} seed(s), corruptions "
        f"{rows[0]['protocol']}; trained at linf {EPS['linf']:g} or l2 {EPS['l2']:g}, attacked at half of that"
    )
    lines = [setting, "", "| arm | seconds | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for arm in dict.fromkeys(row["arm"] for row in rows):
        own = [row for row in rows if row["arm"] == arm]
        cells = [spread(tuple(row[column] for row in own)) for column in COLUMNS]
        lines.append("| " + " | ".join([arm, f"{mean(row['seconds'] for row in own):.0f}", *cells]) + " |")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="fashion-mnist" if FASHION_MNIST.exists() else "digits")
    parser.add_argument("--model", default="test_resnet", help="any timm model")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS, metavar="ARM")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3, help="of hardening")
    parser.add_argument("--ordinary-epochs", type=int, default=4, help="of ordinary training before it")
    parser.add_argument("--train", type=int, default=10_000, help="training images")
    parser.add_argument("--test", type=int, default=1_000, help="test images")
    parser.add_argument("--out", type=Path, default=Path("runs/corruptions"))
    parser.add_argument("--progress", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
