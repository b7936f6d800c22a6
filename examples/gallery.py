"""Draw what the library does: one picture for each part of the gallery.

    python examples/gallery.py
    python examples/gallery.py --run runs/a --data photographs --report runs/report --out pictures

The first command draws the pictures of docs/gallery.md. It takes the steps of docs/tutorial.md: it makes photographs, trains a small
model on them and hardens it, evaluates it before and after, and writes a report. The second command draws those of a run of
yours that began with --finetune. Where there is no Chromium or Chrome, the picture of the report is left out.
"""

import argparse
import sys
from pathlib import Path

import pictures
from photographs import SPLITS, write
from PIL import Image

from robusttune.__main__ import main as robusttune

FILES = {
    "photographs": "photographs.jpg",
    "attacked": "attacked.jpg",
    "gradients": "gradients.jpg",
    "corrupted": "corrupted.jpg",
    "curve": "curve.png",
    "report": "report.webp",
}
OF_A_REPORT = {"curve", "report"}
ADVERSARY = ("--norm", "linf", "--eps", "8/255")
SWEEP = ("--which", "clean", "{sweep: {norms: [linf]}}")
SEVERITY, CORRUPTED_SIDE = 3, 224
PAGE, PAGE_SHOWN = (1000, 1180), 0.8  # pixels of the report, and their scale in the picture


def main() -> None:
    """Draw the pictures."""
    options = arguments()
    wanted = options.only
    if wanted is None:
        wanted = [name for name in FILES if name != "report" or pictures.browser_here()]
    if set(wanted) - {"corrupted"} and not options.run.exists():
        make_run(options, reported=bool(OF_A_REPORT & set(wanted)))
    options.out.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        path = options.out / FILES[name]
        drawn(name, options).save(path, quality=72)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def make_run(options: argparse.Namespace, *, reported: bool) -> None:
    """Make photographs and a run of harden on them; if wanted, a report of before and after."""
    if not options.data.exists():
        write(options.data, {split: min(count, options.images) for split, count in SPLITS.items()})
    data, run, epochs = ["--data", str(options.data)], str(options.run), str(options.epochs)
    size = ["--size", str(options.size)]
    length = ["--finetune", epochs, "--epochs", epochs]
    called("harden", "--model", "timm:test_resnet", *data, *size, *ADVERSARY, *length, "--out", run)
    if not reported:
        return
    measured = [*data, "--split", "test", *ADVERSARY, *SWEEP]
    called("evaluate", f"{run}/finetune", *measured, "--out", f"{run}/before")
    called("evaluate", run, *measured, "--out", f"{run}/evaluation")
    called("report", f"before={run}/before", f"after={run}/evaluation", "--out", str(options.report))


def called(*words: str) -> None:
    """Run a command of robusttune in this process, and stop where it fails."""
    code = robusttune(words)
    if code:
        sys.exit(code)


def drawn(name: str, options: argparse.Namespace) -> Image.Image:
    """One of the pictures."""
    if name == "corrupted":
        return pictures.corrupted(SEVERITY, CORRUPTED_SIDE, options.shown)
    if name == "curve":
        return Image.open(options.report / "curve.png").convert("RGB").quantize(64)
    if name == "report":
        page = pictures.screenshot(options.report / "report.html", PAGE)
        return page.resize([round(length * PAGE_SHOWN) for length in page.size])
    before, after = pictures.subject(options.run / "finetune"), pictures.subject(options.run)
    if name == "photographs":
        return pictures.photographs(pictures.images_of(options.data / "train", after.side, 4), options.shown)
    images = pictures.images_of(options.data / "test", after.side)
    chosen = pictures.chosen(images, [before, after])
    if name == "gradients":
        return pictures.gradients(before, after, *chosen, options.shown)
    return pictures.attacked(before, after, pictures.adversary(options.run), *chosen, options.shown)


def arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/gallery"), help="folder of a run; made if not there")
    parser.add_argument("--data", type=Path, default=Path("runs/photographs"), help="images; made if not there")
    parser.add_argument(
        "--report", type=Path, default=Path("runs/gallery-report"), help="folder of a report of the run"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/gallery"), help="folder for the pictures")
    parser.add_argument("--only", nargs="+", choices=FILES, help="the pictures to draw; all of them by default")
    parser.add_argument("--shown", type=int, default=104, help="pixels a side of an image in a picture")
    made = parser.add_argument_group("of a run that is made")
    made.add_argument("--images", type=int, default=SPLITS["train"], help="at most so many of each class in a split")
    made.add_argument("--size", type=int, default=48, help="pixels a side")
    made.add_argument("--epochs", type=int, default=8, help="of ordinary training, and of hardening")
    return parser.parse_args()


if __name__ == "__main__":
    main()
