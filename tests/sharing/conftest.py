"""A run of harden on real digits, and what was measured on its model: made once for all tests of this package."""

from functools import partial

import pytest
import timm
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import robusttune
from robusttune.evaluations.sweep import sweep

SIDE, COUNT = 16, 64


def digits():
    """Digits of scikit-learn (64,3,16,16) on [0,1], the first four classes, and their labels."""
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(n_class=4, return_X_y=True)
    grey = torch.tensor(images[:COUNT] / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    return nn.functional.interpolate(grey, SIDE).expand(-1, 3, -1, -1).contiguous(), torch.tensor(labels[:COUNT])


def fit(model, images, labels):
    """Train a model in the ordinary way, for a second, so that it is right on most of these images."""
    optimizer = torch.optim.AdamW(model.train().parameters(), 0.003)
    for _ in range(12):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()


class Named(TensorDataset):
    """Images and labels whose classes have names, two of which would be markup."""

    classes = ("<script>alert(0)</script>", "a|b", "](javascript:run)", "three")


@pytest.fixture(scope="session")
def loader():
    return DataLoader(Named(*digits()), 32)


@pytest.fixture(scope="session")
def run(loader, tmp_path_factory):
    """The folder of a run, with an evaluation inside."""
    folder = tmp_path_factory.mktemp("runs") / "a"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model("test_resnet", num_classes=4)
        fit(model, *digits())
    settings = {
        "tasks": None,
        "epochs": 1,
        "steps": 1,
        "lr": 0.01,
        "update_batch": None,
        "augment": "none",
        "tune": False,
    }
    robusttune.harden(model, loader, eps=4 / 255, **settings, val_loader=loader, out=folder, progress=False)
    attacked = partial(sweep, norms=["linf"], eps=[4 / 255], steps=3)
    notes = {"data": "/home/someone/digits", "split": "test"}
    robusttune.evaluate(folder, loader, ["clean", attacked], out=folder / "evaluation", notes=notes, progress=False)
    return folder
