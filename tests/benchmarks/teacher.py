"""The time of a step with a teacher that labels all images, beside the same step with true labels.

    python tests/benchmarks/teacher.py --out docs/benchmarks/teacher.json

Both are runs of `harden` from a model that was trained ordinarily on the same images of Fashion-MNIST, alternated; seconds are
those of the processor, on one thread. Each round gives a ratio; the table has their median and range. What comes before the first
step is left out: a run of one step is timed, too, and its time is subtracted. Images that a transform moves at random are labelled
at each step; of images that stay as they are, the labels are remembered on a processor.
"""

import argparse
import copy
import json
import logging
import platform
import sys
import time
from pathlib import Path
from statistics import median

import torch
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from images import SIDE, fashion_mnist, first
from ordinary import new_model, train

import robusttune

IMAGES, BATCH, EPOCHS = 1_280, 128, 10
MODELS = ("test_resnet", "test_vit")
WAYS = {
    "PGD-10": {"attack": "pgd", "steps": 10},
    'preset="fast"': {"preset": "fast"},
}
KINDS = {"new": True, "as before": False}


class Moved(Dataset):
    """Images, moved a little at random where it is asked, with or without their labels."""

    def __init__(self, images: Dataset, *, moved: bool, labelled: bool) -> None:
        self.images, self.moved, self.labelled = images, moved, labelled

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> torch.Tensor | tuple[torch.Tensor, int]:
        image, label = self.images[row]
        if self.moved:
            image = image.roll(tuple(torch.randint(-2, 3, (2,)).tolist()), (1, 2))
        return (image, label) if self.labelled else image


def seconds(model: torch.nn.Module, loader: DataLoader, held: DataLoader, settings: dict) -> float:
    """The seconds of the processor for the steps of one epoch but the first."""
    taken = []
    for steps in (1, len(loader)):
        twin = copy.deepcopy(model)
        began = time.process_time()
        robusttune.harden(
            twin, loader, norm="linf", eps=0.1, tasks=None, eps_ramp=False, tune=False, progress=False, device="cpu",
            epochs=1, max_steps=steps, val_loader=held, lr=0.001, **settings,
        )  # fmt: skip
        taken.append(time.process_time() - began)
    return taken[1] - taken[0]


def compared(name: str, rounds: int) -> list[dict]:
    """A row for each way of training and kind of images: the ratios, and the seconds of a step with true labels."""
    images = first(fashion_mnist()[0], IMAGES)
    held = DataLoader(first(fashion_mnist()[1], 2), 2)  # attacks on these cost next to nothing
    torch.manual_seed(0)
    model = train(new_model(name, 1, 10, SIDE), DataLoader(images, BATCH, shuffle=True), EPOCHS, progress=False)
    rows = []
    for way, settings in WAYS.items():
        for kind, moved in KINDS.items():
            true, alone = (
                DataLoader(Moved(images, moved=moved, labelled=labelled), BATCH) for labelled in (True, False)
            )
            pairs = [[seconds(model, loader, held, settings) for loader in (true, alone)] for _ in range(rounds)]
            ratios = [taught / plain for plain, taught in pairs]
            step = median(plain for plain, _ in pairs) / (len(true) - 1)
            rows.append({"model": name, "training": way, "images": kind, "step": step, "ratios": ratios})
            print(table(rows[-1:])[-1], flush=True)
    return rows


def table(rows: list[dict]) -> list[str]:
    """Markdown lines: median and range of the ratios."""
    lines = [
        "| model | training | images in each epoch | step with true labels | as long with a teacher |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        ratios = row["ratios"]
        cells = [row["model"], f"`{row['training']}`" if "=" in row["training"] else row["training"], row["images"]]
        cells += [f"{row['step']:.2f} s", f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Compare, print the table, save the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, required=True, help="a .json file; the table goes beside it as .md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("robusttune").setLevel(logging.ERROR)
    rows = [row for name in options.models for row in compared(name, options.rounds)]
    where = (
        f"Batches of {BATCH} images of {SIDE} px, one thread, seconds of the processor, {options.rounds} rounds "
        f"(median and range), {platform.machine()}, torch {torch.__version__}"
    )
    command = " ".join(["python", "tests/benchmarks/" + Path(sys.argv[0]).name, *sys.argv[1:]])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"setting": where, "rows": rows}, indent=1) + "\n")
    options.out.with_suffix(".md").write_text("\n".join([where, "", *table(rows), "", f"`{command}`"]) + "\n")


if __name__ == "__main__":
    main()
