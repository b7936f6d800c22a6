"""How near `strong` comes to the standard AutoAttack, and in what share of its time, on one hardened model in one run.

    python tests/benchmarks/strong.py --norm linf --out docs/benchmarks/strong-linf.json

The model is a small CNN, hardened by PGD-10 on Fashion-MNIST where it is installed (else on digits). Both evaluations see
the same test images; AutoAttack is built of torchattacks' members with 100 steps, 9 targets and 5,000 queries.
"""

import argparse
import json
import os
import platform
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from compare import EPS
from images import FASHION_MNIST, SIDE, loaders, shape_and_classes
from ordinary import new_model, train

import robusttune


def main() -> None:
    """Harden a model, evaluate it in both ways, print a table, save the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--norm", default="linf", choices=sorted(EPS))
    parser.add_argument("--data", default="fashion-mnist" if FASHION_MNIST.exists() else "digits")
    parser.add_argument("--model", default="test_resnet")
    parser.add_argument("--train", type=int, default=10_000)
    parser.add_argument("--test", type=int, default=1_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    training, testing = loaders(options.data, train=options.train, test=options.test, batch=250)
    torch.manual_seed(0)
    model = train(new_model(options.model, *shape_and_classes(training), SIDE), training, 4, progress=False)
    settings = {"norm": options.norm, "eps": EPS[options.norm], "progress": False}
    robusttune.harden(model, training, preset="joint", tasks=None, epochs=options.epochs, **settings)
    records = robusttune.evaluate(model, testing, ["clean", "strong", "autoattack"], **settings)
    costs = records.facts["evaluations"]
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    lines = [
        f"{options.model}, {options.data}, {options.norm} eps {EPS[options.norm]:g}, {machine}, torch {torch.__version__}",
        "",
        records.table(),
        "",
        f"seconds: strong {costs['strong']['seconds']:.0f}, autoattack {costs['autoattack']['seconds']:.0f} "
        f"({costs['strong']['seconds'] / costs['autoattack']['seconds']:.2f} of it); difference "
        f"{100 * (records.where('strong')[-1].value - records.where('autoattack')[-1].value):.1f} points",
    ]
    print("\n".join(lines))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.with_suffix(".md").write_text("\n".join(lines) + "\n")
        options.out.write_text(json.dumps({"facts": records.facts}, indent=1) + "\n")


if __name__ == "__main__":
    main()
