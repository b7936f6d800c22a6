"""How many batches of other images raise an alarm in `Monitor`, and how many of the right ones.

    python tests/benchmarks/monitor.py --out docs/benchmarks/monitor.json

A model is hardened for a short while with the rotation task on Fashion-MNIST; its reference is recorded on test images.
Batches of 32 and of 128 of further test images give the realised rate of false alarms; the same images corrupted, and
handwritten digits, how many batches are found. With the rotation head, and by pixels and confidence alone.
"""

import argparse
import json
import logging
import platform
import sys
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from images import SIDE, digits, fashion_mnist, first, loaders
from ordinary import new_model

import robusttune
from robusttune import Monitor, plugins
from robusttune.measuring.intervals import wilson

SIZES = (32, 128)
CORRUPTIONS = ("gaussian_noise", "gaussian_blur", "contrast", "brightness", "fog", "pixelate", "jpeg_compression")
SEVERITIES = (1, 3, 5)
SETTINGS = {
    "preset": "joint",
    "tasks": {"rotation": 0.5},
    "attack_tasks": "none",
    "attack": "nfgsm",
    "norm": "linf",
    "eps": 0.1,
}


def main() -> None:
    """Harden, record, count alarms, print the table, save the numbers."""
    options = arguments()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    logging.getLogger("robusttune").setLevel(logging.ERROR)
    training, _ = loaders("fashion-mnist", train=options.train)
    model, folder = new_model("test_resnet", 1, 10, SIDE), options.run
    robusttune.harden(
        model, training, **SETTINGS, epochs=options.epochs, device="cpu", progress=False, out=folder, resume=True
    )
    test = torch.stack([image for image, _ in fashion_mnist()[1]])
    reference, clean = test[: options.reference], test[options.reference :]
    monitors = {
        name: Monitor(model, reference.split(500), heads=heads, false_alarms=options.false_alarms)
        for name, heads in (("with the head", folder), ("without", None))
    }
    foreign = torch.stack([image for image, _ in first(digits()[0], options.images)])
    rows = [counted("clean", clean, monitors), counted("digits", foreign, monitors)]
    for name in CORRUPTIONS:
        change = plugins.find("corruptions", name)
        for severity in SEVERITIES:
            apply = partial(change, severity=severity, generator=torch.Generator().manual_seed(0))
            rows.append(counted(f"{name}, {severity}", apply(clean[: options.images]), monitors))
            print(rows[-1], flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"setting": setting(options), "rows": rows}, indent=1) + "\n")
    text = table(rows, monitors, options)
    print(text)
    options.out.with_suffix(".md").write_text(text + "\n")


def counted(name: str, images: torch.Tensor, monitors: dict[str, Monitor]) -> dict:
    """For each monitor and batch size: alarms, batches."""
    found = {}
    for kind, monitor in monitors.items():
        for size in SIZES:
            batches = [batch for batch in images.split(size) if len(batch) == size]
            found[f"{kind}, {size}"] = [sum(monitor(batch).alarm for batch in batches), len(batches)]
    return {"images": name, **found}


def table(rows: list[dict], monitors: dict[str, Monitor], options: argparse.Namespace) -> str:
    """Markdown: the share of batches that raise an alarm."""
    columns = [f"{kind}, {size}" for kind in monitors for size in SIZES]
    lines = [setting(options), "", "| " + " | ".join(["images", *columns]) + " |", "|---" * (1 + len(columns)) + "|"]
    for row in rows:
        cells = [row["images"]]
        for column in columns:
            alarms, batches = row[column]
            low, high = wilson(alarms, batches)
            more = f" ({100 * low:.1f}–{100 * high:.1f}, {batches} batches)" if row["images"] == "clean" else ""
            cells.append(f"{100 * alarms / batches:.1f}%{more}")
        lines.append("| " + " | ".join(cells) + " |")
    command = " ".join(["python", "tests/benchmarks/" + Path(sys.argv[0]).name, *sys.argv[1:]])
    return "\n".join([*lines, "", f"`{command}`"])


def setting(options: argparse.Namespace) -> str:
    """What was run, in a line."""
    return (
        f"Share of batches that raise an alarm at false_alarms={options.false_alarms:g}; test_resnet hardened on "
        f"{options.train} images of Fashion-MNIST for {options.epochs} epochs (N-FGSM, linf eps 0.1, rotation), reference "
        f"{options.reference} test images, {options.images} images a condition, {platform.machine()}, torch "
        f"{torch.__version__}"
    )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=6_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--reference", type=int, default=2_000)
    parser.add_argument("--images", type=int, default=1_024)
    parser.add_argument("--false-alarms", type=float, default=0.01)
    parser.add_argument("--run", default="runs/monitored", help="where the hardened model and its heads are kept")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
