"""Harden a real model on real images and see what it gained: a table, and a picture in the folder `runs/quickstart`.

    python examples/quickstart.py
    python examples/quickstart.py --data fashion-mnist --norm linf --eps 0.1 --train 10000 --test 1000
    python examples/quickstart.py --data path/to/folder/of/class/folders

With --guard it fails if the robust accuracy it prints is more than half a point above that of APGD with 100 steps from
torchattacks on the same images, so that the library cannot flatter itself.
"""

import argparse
import sys
from functools import partial

import torch
from images import SIDE, loaders, shape_and_classes
from ordinary import new_model, train

import robusttune
from robusttune.attacks.torchattacks import torchattacks
from robusttune.evaluations.sweep import sweep
from robusttune.measuring.record import percent
from robusttune.measuring.records import Records

EPS = {"l2": 1.0, "linf": 0.1}
MULTIPLES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
GUARD = 0.005


def main() -> None:
    """Train, measure, harden, measure again."""
    options = arguments()
    torch.manual_seed(options.seed)
    eps = EPS[options.norm] if options.eps is None else options.eps
    training, testing = loaders(options.data, train=options.train, test=options.test)
    channels, classes = shape_and_classes(training)
    model = train(new_model(options.model, channels, classes, SIDE), training, options.ordinary_epochs)

    notes = {"model": f"timm:{options.model}", "data": options.data, "split": "test"}
    ordinary = f"ordinary training, {options.ordinary_epochs} epochs on {len(training.dataset):,} images"
    hardening = f"{ordinary}; then adversarial training (harden), {options.norm} {eps:g}, {options.epochs} epochs"
    measure = partial(measured, testing=testing, training=training, norm=options.norm, eps=eps)
    runs = {"before": measure(model, notes={**notes, "training": ordinary})}
    model = robusttune.harden(model, training, norm=options.norm, eps=eps, epochs=options.epochs, seed=options.seed)
    runs["after"] = measure(model, notes={**notes, "training": hardening})

    page = robusttune.report(runs, options.out)
    print(table(runs, options.norm, eps))
    print(f"\nAccuracy against eps, before and after: {page.parent / 'curve.png'} (report: {page})")
    if options.guard:
        guard(runs["after"], eps)


def measured(
    model: torch.nn.Module, *, testing: object, training: object, norm: str, eps: float, notes: dict[str, str]
) -> Records:
    """Clean accuracy, our sweep in this norm, and APGD of torchattacks at the training radius as an outside judge."""
    judge = partial(
        sweep, norms=[norm], eps=[eps], attack=partial(torchattacks, name="APGD"), steps=100, losses=["cross_entropy"]
    )
    ours = partial(sweep, norms=[norm], eps=[multiple * eps for multiple in MULTIPLES])
    which = ["clean", ours, judge]
    return robusttune.evaluate(model, testing, which, norm=norm, eps=eps, training_loader=training, notes=notes)


def table(runs: dict[str, Records], norm: str, eps: float) -> str:
    """Clean and robust accuracy with 95% intervals, a row for each model."""
    head = [
        "model",
        "images",
        "clean",
        f"robust, {norm} {eps:g} (robusttune)",
        f"robust, {norm} {eps:g} (torchattacks APGD-100)",
    ]
    rows = [[name, str(records[0].images), *map(cell, three(records, eps))] for name, records in runs.items()]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [" | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in [head, *rows]]
    return "\n" + "\n".join([lines[0], "-|-".join("-" * width for width in widths), *lines[1:]])


def three(records: Records, eps: float) -> list[robusttune.Record]:
    """The clean Record, ours at the radius, and the judge's."""
    at_radius = records.where("sweep", eps=eps)
    return [records.where("clean")[0], at_radius.where(attack="apgd")[0], at_radius[-1]]


def cell(record: robusttune.Record) -> str:
    """An accuracy with its interval."""
    low, high = record.interval
    return f"{percent(record.value)} ({100 * low:.1f} to {100 * high:.1f})"


def guard(records: Records, eps: float) -> None:
    """Exit with an error if we print a robust accuracy that an outside judge does not confirm."""
    _, ours, judge = three(records, eps)
    if ours.value > judge.value + GUARD:
        sys.exit(
            f"guard: robusttune prints {percent(ours.value)}, but torchattacks' APGD leaves {percent(judge.value)}"
        )
    print(f"guard: {percent(ours.value)} is at most half a point above torchattacks' {percent(judge.value)}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help="digits, fashion-mnist, or a folder of class folders")
    parser.add_argument("--model", default="test_resnet", help="any timm model")
    parser.add_argument("--norm", default="l2", choices=sorted(EPS))
    parser.add_argument("--eps", type=float, help=f"radius in pixels on [0,1] (default: {EPS})")
    parser.add_argument("--epochs", type=int, default=6, help="of hardening")
    parser.add_argument("--ordinary-epochs", type=int, default=8, help="of ordinary training before it")
    parser.add_argument("--train", type=int, help="training images (default: all)")
    parser.add_argument("--test", type=int, default=300, help="test images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs/quickstart", help="folder for the report and the picture")
    parser.add_argument("--guard", action="store_true", help="fail if our robust accuracy is flattering")
    return parser.parse_args()


if __name__ == "__main__":
    main()
