"""What the examples of training loops share: a model, images, and the table that each of them ends in."""

import sys

import torch
from images import SIDE, loaders
from ordinary import new_model, train
from torch import nn
from torch.utils.data import DataLoader

import robusttune

THREAT = robusttune.ThreatModel("linf", 0.1)
SETTINGS = {"tasks": {"rotation": 0.5, "jigsaw": 0.5}, "attack_tasks": "none", "steps": 3}
EPOCHS, RATE = 3, 0.05


def scene(seed: int = 0) -> tuple[nn.Module, DataLoader, DataLoader]:
    """An ordinarily trained model, and loaders of real digits to harden it with and to measure it on."""
    torch.manual_seed(seed)
    training, testing = loaders("digits", test=200)
    return train(new_model("test_resnet", 1, 10, SIDE), training, 10, progress=False), training, testing


def optimizer_of(robust_loss: nn.Module) -> torch.optim.Optimizer:
    """The same for every loop: it trains the model and the heads."""
    return torch.optim.SGD(robust_loss.parameters(), RATE, momentum=0.9)


def measured(model: nn.Module, testing: DataLoader) -> robusttune.Records:
    """Clean accuracy, and under attack at half the radius, at it and above."""
    from functools import partial

    from robusttune.evaluations.sweep import sweep

    radii = [0.5 * THREAT.eps, THREAT.eps, 1.5 * THREAT.eps]
    which = ["clean", partial(sweep, norms=[THREAT.norm], eps=radii, steps=20)]
    return robusttune.evaluate(model, testing, which, norm=THREAT.norm, eps=THREAT.eps, progress=False)


def finish(before: robusttune.Records, after: robusttune.Records) -> None:
    """Print the table; fail if the model has not become more robust."""
    print("| eps | before | after |\n|---|---|---|")
    for one, other in zip(before, after, strict=True):
        if one.metric == "accuracy":
            eps = one.setting.get("eps", 0.0)
            print(f"| {eps:.3g} | {_share(one)} | {_share(other)} |")
    first, second = (records.where("sweep", eps=THREAT.eps)[0].value for records in (before, after))
    if second <= first:
        sys.exit("the model is no more robust than before")


def _share(record: robusttune.Record) -> str:
    low, high = record.interval
    return f"{100 * record.value:.1f}% ({100 * low:.1f} to {100 * high:.1f})"
