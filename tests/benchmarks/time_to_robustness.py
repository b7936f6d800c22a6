"""How much sooner `preset="fast"` is as robust as training with PGD-10, on the same machine.

    python tests/benchmarks/time_to_robustness.py --model test_resnet --norm linf --lr 0.2 --out docs/benchmarks/time-resnet-linf.json

For each seed a model is trained ordinarily, then hardened from there in several ways, each named with its epochs: `pgd`
(PGD-10 at `--lr`, the fast recipe's own learning rate), `customary` (PGD-10 as `harden` does it unless told otherwise) and
`fast`. On one thread; seconds are of the processor, as other work on the machine does not touch these, and count all of
`harden`, judging included. Robust accuracy is that of `strong` with `--targets` classes (100 steps; docs/evaluation.md sets
it against AutoAttack), on images that training has not seen; `--judge autoattack` asks the standard suite, which takes many
times as long. Rows that are there already are not run again, so it can be interrupted.
"""

import argparse
import copy
import json
import platform
import sys
import time
from functools import partial
from pathlib import Path
from statistics import mean

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from compare import EPS
from images import SIDE, loaders, shape_and_classes
from ordinary import new_model, train

import robusttune
from robusttune.evaluations.strong import strong


def main() -> None:
    """Train, measure, print the table, save the numbers after each row."""
    options = arguments()
    torch.set_num_threads(1)
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    training, testing = loaders("fashion-mnist", train=options.train, test=options.test)
    for seed in range(options.seeds):
        left = [arm for arm in options.arms if (seed, arm) not in {(row["seed"], row["arm"]) for row in rows}]
        if not left:
            continue
        torch.manual_seed(seed)
        start = new_model(options.model, *shape_and_classes(training), SIDE)
        train(start, training, options.ordinary_epochs, progress=False)
        for arm in left:
            rows.append({"seed": seed, "arm": arm, **run(arm, seed, start, training, testing, options)})
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps({"setting": setting(options), "rows": rows}, indent=1) + "\n")
            print(rows[-1], flush=True)
    text = table(rows, options)
    print(text)
    options.out.with_suffix(".md").write_text(text + "\n")


def run(arm: str, seed: int, start, training, testing, options: argparse.Namespace) -> dict:
    """Seconds of hardening, clean and robust accuracy, for one arm and seed."""
    model, norm, eps = copy.deepcopy(start), options.norm, EPS[options.norm]
    kind, epochs = arm.split(":")
    pgd = {"tasks": None, "attack": "pgd", "steps": 10}
    settings = {"pgd": {**pgd, "lr": options.lr}, "customary": pgd, "fast": {"preset": "fast"}}[kind]
    began = time.process_time()
    robusttune.harden(model, training, norm=norm, eps=eps, seed=seed, epochs=int(epochs), progress=False, **settings)
    seconds = time.process_time() - began
    judge = partial(strong, targets=options.targets) if options.judge == "strong" else options.judge
    records = robusttune.evaluate(model, testing, ["clean", judge], norm=norm, eps=eps, progress=False)
    clean, robust = records.where("clean")[0], records.where(options.judge)[-1]
    return {"seconds": seconds, "clean": clean.value, "robust": robust.value, "images": robust.images}


def table(rows: list[dict], options: argparse.Namespace) -> str:
    """Markdown: for each arm the means over seeds, smallest and largest beside the robust accuracy."""
    lines = [
        setting(options),
        "",
        f"| arm, epochs | seeds | seconds | share of {options.arms[0]} | clean | robust | robust, against {options.arms[0]} |",
        "|---|---|---|---|---|---|---|",
    ]
    base = {row["seed"]: row for row in rows if row["arm"] == options.arms[0]}
    for arm in sorted({row["arm"] for row in rows}, key=lambda arm: (arm != options.arms[0], arm)):
        found = [row for row in rows if row["arm"] == arm]
        robust = [100 * row["robust"] for row in found]
        gains = [100 * (row["robust"] - base[row["seed"]]["robust"]) for row in found]
        cells = [
            arm.replace(":", ", "),
            str(len(found)),
            f"{mean(row['seconds'] for row in found):.0f}",
            f"{mean(row['seconds'] / base[row['seed']]['seconds'] for row in found):.2f}",
            f"{100 * mean(row['clean'] for row in found):.1f}%",
            f"{mean(robust):.1f}% ({min(robust):.1f}–{max(robust):.1f})",
            f"{mean(gains):+.1f} ({min(gains):+.1f} to {max(gains):+.1f})",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def setting(options: argparse.Namespace) -> str:
    """What was run, in a line."""
    judge = f"strong with {options.targets} targets" if options.judge == "strong" else options.judge
    return (
        f"{options.model}, Fashion-MNIST at {SIDE} px, {options.train} training and {options.test} test images, {options.norm} "
        f"eps {EPS[options.norm]:g}; `pgd` at learning rate {options.lr:g}; judged by {judge}; {platform.machine()}, "
        f"{torch.get_num_threads()} thread, torch {torch.__version__}"
    )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="test_resnet")
    parser.add_argument("--norm", default="linf", choices=sorted(EPS))
    parser.add_argument("--train", type=int, default=10_000)
    parser.add_argument("--test", type=int, default=1_000)
    parser.add_argument("--arms", nargs="+", default=["pgd:4", "fast:4"], help="pgd, customary or fast, and epochs")
    parser.add_argument("--lr", type=float, required=True, help="of the arm pgd")
    parser.add_argument("--targets", type=int, default=3, help="classes that strong aims at")
    parser.add_argument("--ordinary-epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--judge", default="strong", choices=["strong", "autoattack"])
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
