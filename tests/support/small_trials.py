"""Small trials on random images: seconds each, with everything that a trial does."""

import os
import signal

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import robusttune
from robusttune.trial.results import Trial

SIDE, IMAGES = 16, 64
ARMS = ["nothing", "adversarial", "rotation_joint"]


def loader(count=IMAGES, seed=0):
    drawn = torch.Generator().manual_seed(seed)
    images, labels = torch.rand(count, 1, SIDE, SIDE, generator=drawn), torch.arange(count) % 3
    return DataLoader(TensorDataset(images, labels), batch_size=32)


def small():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
        ).eval()


def tried(out, **changes):
    given = {
        "threats": {"linf": 0.1}, "arms": ARMS, "tasks": {"rotation": 0.5}, "seeds": 2, "epochs": 1, "images": 32,
        "evaluation": ["clean"], "test_loader": loader(seed=1), "mean": [0.0], "std": [1.0], "device": "cpu",
        "settings": {"steps": 2}, "screening": False, "needs": "clean", "progress": False,
    }  # fmt: skip
    return robusttune.poc(small(), loader(), out=out, **{**given, **changes})


def values(out):
    return [(r.arm, r.seed, r.records.where("clean")[0].value) for r in Trial.load(out).results]


def everything(out):
    """All records of all arms and seeds."""
    return [
        (r.arm, r.seed, [(each.evaluation, each.metric, each.setting, each.value) for each in r.records])
        for r in Trial.load(out).results
    ]


class KilledOnce:
    """A job whose worker is killed at the first attempt."""

    def __init__(self, path):
        self.path, self.place = path, NoPlace()

    def run(self):
        if not self.path.exists():
            self.path.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"


class NoPlace:
    arm, seed = "killed", 0
