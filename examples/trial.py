"""Staged trial: several arms and seeds at equal compute on the same images, and a page to decide by.

    python examples/trial.py                  # Fashion-MNIST where installed, else digits
    python examples/trial.py --plan-only      # the plan and its cost alone; edit it, then run without the flag

The same command continues after an interruption. For all of Fashion-MNIST, on a machine with a GPU:

    python examples/trial.py --train 60000 --test 10000 --images 3000 --epochs 20 --seeds 8 --budget 0 --out runs/full
"""

import argparse
import json
from pathlib import Path

import torch
from images import FASHION_MNIST, SIDE, loaders, shape_and_classes
from ordinary import new_model, train
from safetensors.torch import load_file

import robusttune
from robusttune import plugins
from robusttune.trial.results import START, Trial

THREATS = {"linf": 0.1, "l2": 1.0}


def main() -> None:
    """Train a model, run the trial from it, save a table of results beside the page, and print the page's path."""
    options = arguments()
    torch.manual_seed(0)
    training, testing = loaders(options.data, train=options.train, test=options.test)
    channels, classes = shape_and_classes(training)
    model = new_model(options.model, channels, classes, SIDE)
    start = options.out / START
    if start.exists():
        model.load_state_dict(load_file(start))
    else:
        train(model, training, options.ordinary_epochs, progress=options.progress)
    page = robusttune.poc(
        model.eval(),
        training,
        test_loader=testing,
        threats=THREATS,
        corruptions=options.corruptions,
        arms=options.arms,
        seeds=options.seeds,
        epochs=options.epochs,
        images=options.images,
        budget=options.budget or None,
        out=options.out,
        plan_only=options.plan_only,
        needs=options.needs,
        allow_weak=options.allow_weak,
        executor=options.executor,
        resume=True,
        progress=options.progress,
    )
    if not options.plan_only:
        rows = numbers(Trial.load(options.out))
        (options.out / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(page)


def numbers(trial: Trial) -> list[dict]:
    """Return the accuracies and seconds of each arm with each seed as plain numbers."""
    return [
        {
            "arm": result.arm,
            "seed": result.seed,
            "seconds": round(result.seconds, 1),
            "clean": result.records.where("clean")[0].value,
            **{f"{r.setting['norm']} {r.setting['eps']:g}": r.value for r in result.records.where("sweep")},
            **{f"strong, {r.setting['norm']} {r.setting['eps']:g}": r.value for r in result.records.where("strong")},
            **{r.setting["over"]: r.value for r in result.records.where("corruptions") if "over" in r.setting},
        }
        for result in trial.results
    ]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="fashion-mnist" if FASHION_MNIST.exists() else "digits")
    parser.add_argument("--model", default="test_resnet", help="any timm model")
    parser.add_argument("--train", type=int, default=2_000, help="training images")
    parser.add_argument(
        "--test", type=int, default=3_000, help="test images, of which --images are used, and others to screen arms"
    )
    parser.add_argument(
        "--images", type=int, default=2_000, help="test images that the arms that go on are measured on"
    )
    parser.add_argument("--ordinary-epochs", type=int, default=8, help="of ordinary training before the trial")
    parser.add_argument(
        "--epochs", type=float, default=2, help="of adversarial training; other arms take as many passes"
    )
    parser.add_argument(
        "--seeds", type=int, help="of the arms that go on, at most; by default what the budget pays for"
    )
    parser.add_argument("--needs", nargs="+", default=["attack"], help="what the trial must answer")
    parser.add_argument(
        "--allow-weak", action="store_true", help="run a plan that finds not even a difference of five points"
    )
    parser.add_argument("--executor", help="processes:2, ray or slurm: several trainings at a time")
    parser.add_argument(
        "--arms", nargs="+", help=f"of {', '.join(plugins.names('trial.arms'))}; rotation_joint and such, too"
    )
    parser.add_argument("--corruptions", nargs="+", default=["noise", "blur", "weather", "digital"])
    parser.add_argument("--budget", type=float, default=3_600, help="seconds; 0 for no limit")
    parser.add_argument("--out", type=Path, default=Path("runs/trial"))
    parser.add_argument("--plan-only", action="store_true")
    parser.add_argument("--progress", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
