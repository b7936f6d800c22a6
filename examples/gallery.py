"""Draw what the library does: one picture for each part of the gallery.

    python examples/gallery.py
    python examples/gallery.py --run runs/a --data photographs --report runs/report/report.html --out pictures

The first command draws the pictures of docs/gallery.md. It makes the photographs of the tutorial, trains a small model on them and
hardens it, evaluates it before and after, and writes a report. The second command draws those of a run of yours that began
with --finetune.
"""

import argparse
import sys
from pathlib import Path

import pictures
from photographs import SPLITS, write

from robusttune.__main__ import main as robusttune

NAMES = ("photographs", "attacked", "gradients", "corrupted", "report")
ADVERSARY = ("--norm", "linf", "--eps", "8/255")
CANDIDATES = 25  # test images of each class, of which one is shown that both models classify right
SEVERITY, CORRUPTED_SIDE = 3, 224
PAGE, PAGE_SHOWN = (1000, 1180), 0.8  # pixels of the report, and their scale in the picture


def main() -> None:
    """Draw the pictures."""
    options = arguments()
    if not options.run.exists() and set(options.only) - {"corrupted"}:
        make_run(options)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        path = options.out / (f"{name}.webp" if name == "report" else f"{name}.jpg")
        drawn(name, options).save(path, quality=82)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def make_run(options: argparse.Namespace) -> None:
    """Make photographs, a run of harden on them, and a report of before and after."""
    if not options.data.exists():
        write(options.data, {split: min(count, options.images) for split, count in SPLITS.items()})
    data, run, epochs = ["--data", str(options.data)], str(options.run), str(options.epochs)
    size = ["--size", str(options.size), "--batch_size", str(options.batch_size)]
    length = ["--finetune", epochs, "--epochs", epochs]
    called("harden", "--model", "timm:test_resnet", *data, *size, *ADVERSARY, *length, "--out", run)
    measured = [*data, "--split", "test", *ADVERSARY]
    called("evaluate", f"{run}/finetune", *measured, "--out", f"{run}/before")
    called("evaluate", run, *measured, "--out", f"{run}/evaluation")
    called("report", f"before={run}/before", f"after={run}/evaluation", "--out", str(options.report.parent))


def called(*words: str) -> None:
    """Run a command of robusttune in this process, and stop where it fails."""
    code = robusttune(words)
    if code:
        sys.exit(code)


def drawn(name: str, options: argparse.Namespace) -> pictures.Image.Image:
    """One of the pictures."""
    if name == "corrupted":
        return pictures.corrupted(SEVERITY, CORRUPTED_SIDE, options.shown)
    if name == "report":
        page = pictures.screenshot(options.report, PAGE)
        return page.resize([round(length * PAGE_SHOWN) for length in page.size])
    before, after = pictures.subject(options.run / "finetune"), pictures.subject(options.run)
    if name == "photographs":
        return pictures.photographs(pictures.images_of(options.data / "train", after.side, 4), options.shown)
    images = pictures.images_of(options.data / "test", after.side, CANDIDATES)
    chosen = pictures.chosen(images, [before, after])
    if name == "gradients":
        return pictures.gradients(before, after, *chosen, options.shown)
    return pictures.attacked(before, after, pictures.adversary(options.run), *chosen, options.shown)


def arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--run", type=Path, default=Path("runs/gallery"), help="folder of a run; made if it is not there"
    )
    parser.add_argument(
        "--data", type=Path, default=Path("runs/photographs"), help="images; made if they are not there"
    )
    parser.add_argument("--report", type=Path, default=Path("runs/gallery-report/report.html"), help="a page to show")
    parser.add_argument("--out", type=Path, default=Path("docs/gallery"), help="folder for the pictures")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="pictures to draw (default: all)")
    parser.add_argument("--shown", type=int, default=108, help="pixels a side of an image in a picture")
    made = parser.add_argument_group("of a run that is made")
    made.add_argument("--images", type=int, default=SPLITS["train"], help="at most so many of each class in a split")
    made.add_argument("--size", type=int, default=64, help="pixels a side")
    made.add_argument("--epochs", type=int, default=10, help="of ordinary training, and of hardening")
    made.add_argument("--batch-size", type=int, default=128)
    return parser.parse_args()


if __name__ == "__main__":
    main()
