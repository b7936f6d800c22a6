"""How much sooner `preset="fast"` is as robust as training with PGD-10, on the same machine.

    python tests/benchmarks/time_to_robustness.py --model test_resnet --norm linf --lr 0.2 --out docs/benchmarks/time-resnet-linf.json

For each seed a model is trained ordinarily, then hardened from there: with PGD-10 for `--epochs` epochs, and with
`preset="fast"` for each of `--fast-epochs`, on one thread. Seconds are of the processor, as other work on the machine does
not touch these, and count all of `harden`, judging included. Robust accuracy is that of `strong` (100 steps;
docs/evaluation.md sets it against AutoAttack), on images that training has not seen; `--judge autoattack` asks the standard
suite, which takes about eight times as long. Rows that are there already are not run again, so it can be interrupted.
"""

import argparse
import copy
import json
import platform
import sys
import time
from pathlib import Path
from statistics import mean

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from compare import EPS
from images import SIDE, loaders, shape_and_classes
from ordinary import new_model, train

import robusttune


def main() -> None:
    """Train, measure, print the table, save the numbers after each row."""
    options = arguments()
    torch.set_num_threads(1)
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    training, testing = loaders("fashion-mnist", train=options.train, test=options.test)
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        start = new_model(options.model, *shape_and_classes(training), SIDE)
        train(start, training, options.ordinary_epochs, progress=False)
        arms = [("PGD-10", options.epochs), *(("fast", epochs) for epochs in options.fast_epochs)]
        for arm, epochs in arms:
            if any((row["seed"], row["arm"], row["epochs"]) == (seed, arm, epochs) for row in rows):
                continue
            found = run(arm, epochs, seed, start, training, testing, options)
            rows.append({"seed": seed, "arm": arm, "epochs": epochs, **found})
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps({"setting": setting(options), "rows": rows}, indent=1) + "\n")
            print(rows[-1], flush=True)
    text = table(rows, options)
    print(text)
    options.out.with_suffix(".md").write_text(text + "\n")


def run(arm: str, epochs: int, seed: int, start, training, testing, options: argparse.Namespace) -> dict:
    """Seconds of hardening, clean and robust accuracy, for one arm and seed."""
    model, norm, eps = copy.deepcopy(start), options.norm, EPS[options.norm]
    settings = {"tasks": None, "attack": "pgd", "steps": 10, "lr": options.lr}
    settings = {"preset": "fast"} if arm == "fast" else settings
    began = time.process_time()
    robusttune.harden(model, training, norm=norm, eps=eps, seed=seed, epochs=epochs, progress=False, **settings)
    seconds = time.process_time() - began
    records = robusttune.evaluate(model, testing, ["clean", options.judge], norm=norm, eps=eps, progress=False)
    clean, robust = records.where("clean")[0], records.where(options.judge)[-1]
    return {"seconds": seconds, "clean": clean.value, "robust": robust.value, "images": robust.images}


def table(rows: list[dict], options: argparse.Namespace) -> str:
    """Markdown: for each arm the means over seeds, smallest and largest beside the robust accuracy."""
    lines = [
        setting(options),
        "",
        "| arm, epochs | share of the time | clean | robust | robust, against PGD-10 |",
        "|---|---|---|---|---|",
    ]
    own = {
        key: [row for row in rows if (row["arm"], row["epochs"]) == key]
        for key in {(r["arm"], r["epochs"]): 0 for r in rows}
    }
    base = {row["seed"]: row for row in rows if row["arm"] == "PGD-10"}
    for (arm, epochs), found in own.items():
        robust = [100 * row["robust"] for row in found]
        share = mean(row["seconds"] / base[row["seed"]]["seconds"] for row in found)
        seconds = mean(row["seconds"] for row in found)
        gains = [100 * (row["robust"] - base[row["seed"]]["robust"]) for row in found]
        cells = [
            f"{arm}, {epochs}",
            f"{share:.2f} ({seconds:.0f} s)",
            f"{100 * mean(row['clean'] for row in found):.1f}%",
            f"{mean(robust):.1f}% ({min(robust):.1f}–{max(robust):.1f})",
            f"{mean(gains):+.1f} ({min(gains):+.1f} to {max(gains):+.1f})",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def setting(options: argparse.Namespace) -> str:
    """What was run, in a line."""
    rate = "its customary learning rate" if options.lr is None else f"learning rate {options.lr:g}"
    return (
        f"{options.model}, Fashion-MNIST at {SIDE} px, {options.train} training and {options.test} test images, {options.norm} "
        f"eps {EPS[options.norm]:g}; PGD-10 for {options.epochs} epochs at {rate}; {options.judge}; {options.seeds} seeds; "
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="test_resnet")
    parser.add_argument("--norm", default="linf", choices=sorted(EPS))
    parser.add_argument("--train", type=int, default=10_000)
    parser.add_argument("--test", type=int, default=1_000)
    parser.add_argument("--epochs", type=int, default=4, help="of PGD-10")
    parser.add_argument("--lr", type=float, help="of PGD-10")
    parser.add_argument("--ordinary-epochs", type=int, default=4)
    parser.add_argument("--fast-epochs", type=int, nargs="+", default=[4])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--judge", default="strong", choices=["strong", "autoattack"])
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
