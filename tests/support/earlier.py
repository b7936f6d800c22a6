"""Folders of runs and of a trial, on handwritten digits: `earlier.py FOLDER` writes them, killed where the name says so.

The folders in `earlier_folders/` were written by this script at commit 42489d3, before the package was rearranged.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import robusttune

SETTINGS = {"norm": "l2", "eps": 0.5, "steps": 2, "epochs": 3, "awp": 0.005, "lr": 0.02, "augment": "standard"}
PLAN = {
    "threats": {"linf": 0.1}, "arms": ["nothing", "ordinary", "adversarial"], "seeds": 2, "epochs": 1, "images": 64,
    "evaluation": ["clean", {"sweep": {"norms": ["linf"], "eps": [0.1], "steps": 3}}], "mean": [0.0], "std": [1.0],
    "settings": {"steps": 2}, "device": "cpu", "progress": False,
}  # fmt: skip


def digits(first, last):
    """Handwritten digits (N,1,16,16) on [0,1] and their classes."""
    data = load_digits()
    images = torch.tensor(data.images[first:last] / 16, dtype=torch.float32)[:, None]
    return TensorDataset(nn.functional.interpolate(images, scale_factor=2.0), torch.tensor(data.target[first:last]))


def a_loader(first=0, last=256, *, shuffle=True):
    return DataLoader(digits(first, last), 32, shuffle=shuffle)


def a_model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Conv2d(1, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        return nn.Sequential(*layers, nn.Linear(24, 10))


def hardened(out, **more):
    """The run of these folders, from its start or with resume=True."""
    torch.set_num_threads(1)
    held = a_loader(1000, 1096, shuffle=False)
    return robusttune.harden(a_model(), a_loader(), val_loader=held, out=out, **{**SETTINGS, "progress": False, **more})


def tried(out, **more):
    """The trial of these folders, from its start or with resume=True."""
    torch.set_num_threads(1)
    test = a_loader(1200, 1264, shuffle=False)
    return robusttune.poc(a_model().eval(), a_loader(), test_loader=test, out=out, **{**PLAN, **more})


def main(folder):
    def kill(facts):
        if facts["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    folder.mkdir(parents=True)
    hardened(folder / "ended")
    tried(folder / "trial")
    if not os.fork():
        hardened(folder / "killed", checkpoint_every=3, on_epoch=kill)
    os.wait()
    # A trial that was killed in its second seed, but for what takes place on the disk.
    for path in (folder / "trial" / "arms").glob("*/seed-1-*"):
        shutil.rmtree(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
