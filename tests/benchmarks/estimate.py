"""How near `estimate` comes to what `harden` then takes.

    python tests/benchmarks/estimate.py --out docs/benchmarks/estimate.json

For each model and setting: the estimate, then the run itself, from the same random weights on the same images, on one
thread, after a short run that loads what is loaded once. Seconds are of the processor, for the estimate's own clock and for
the run, as other work on the machine does not touch these; seconds on the wall stand in the JSON file beside them. Rows that
are there already are not run again.
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from images import SIDE, loaders
from ordinary import new_model

import robusttune
from robusttune.training import profiling

NEAR = 0.25
SETTINGS = {
    "standard": {"epochs": 4},
    "fast": {"preset": "fast", "epochs": 4},
    "plain PGD-10": {"preset": "joint", "tasks": None, "epochs": 1},
    "joint": {"preset": "joint", "epochs": 1},
    "trades": {"preset": "joint", "tasks": None, "objective": "trades", "epochs": 1},
    "plain, 12 steps": {"preset": "joint", "tasks": None, "epochs": 3, "max_steps": 12},
}


def main() -> None:
    """Estimate, run, print the table, save the numbers after each row."""
    options = arguments()
    torch.set_num_threads(1)
    profiling.clock = time.process_time
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    training, _ = loaders("fashion-mnist", train=options.train)
    for model in options.models:
        run(model, {"tasks": None, "epochs": 1, "max_steps": 1}, training)
        for name, settings in SETTINGS.items():
            if any((row["model"], row["setting"]) == (model, name) for row in rows):
                continue
            rows.append({"model": model, "setting": name, **run(model, settings, training)})
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps({"setting": setting(options), "rows": rows}, indent=1) + "\n")
            print(rows[-1], flush=True)
    text = table(rows, options)
    print(text)
    options.out.with_suffix(".md").write_text(text + "\n")


def run(name: str, settings: dict, training) -> dict:
    """Predicted and real seconds, and what predicting took."""
    torch.manual_seed(0)
    model, common = new_model(name, 1, 10, SIDE), {"norm": "linf", "eps": 0.1, "device": "cpu"}
    began = time.process_time()
    found = robusttune.estimate(model, training, **common, **settings)
    estimating = time.process_time() - began
    began, wall = time.process_time(), time.perf_counter()
    robusttune.harden(model, training, **common, **settings, progress=False)
    return {
        "predicted": found.seconds,
        "real": time.process_time() - began,
        "real wall": time.perf_counter() - wall,
        "estimating": estimating,
        "parts": found.parts,
        "steps": found.steps,
    }


def table(rows: list[dict], options: argparse.Namespace) -> str:
    """Markdown: predicted and real seconds, and their ratio."""
    lines = [
        setting(options),
        "",
        "| model | setting | predicted | real | predicted / real | the estimate itself |",
        "|---|---|---|---|---|---|",
    ]
    ratios = []
    for row in rows:
        ratios.append(row["predicted"] / row["real"])
        cells = [row["model"], row["setting"], f"{row['predicted']:.1f} s", f"{row['real']:.1f} s"]
        lines.append("| " + " | ".join([*cells, f"{ratios[-1]:.2f}", f"{row['estimating']:.1f} s"]) + " |")
    near = sum(abs(ratio - 1) <= NEAR for ratio in ratios)
    lines += [
        "",
        f"{near} of {len(rows)} are within {NEAR:.0%}; the ratios go from {min(ratios):.2f} to {max(ratios):.2f}.",
    ]
    command = " ".join(["python", "tests/benchmarks/" + Path(sys.argv[0]).name, *sys.argv[1:]])
    return "\n".join([*lines, "", f"`{command}`"])


def setting(options: argparse.Namespace) -> str:
    """What was run, in a line."""
    return (
        f"{options.train} images of Fashion-MNIST at {SIDE} px, batch 128, linf eps 0.1; seconds of the processor, one "
        f"thread, {platform.machine()}, torch {torch.__version__}"
    )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["test_resnet", "test_vit"])
    parser.add_argument("--train", type=int, default=4_000)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
