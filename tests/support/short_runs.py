"""Handwritten digits, a small net with batch norm, and short runs of `harden` with them."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import robusttune
from robusttune.tasks.rotation import rotation


def digits(count=400):
    data = pytest.importorskip("sklearn.datasets").load_digits()
    images = torch.tensor(data.images[:count] / 16, dtype=torch.float32)[:, None]
    return TensorDataset(images, torch.tensor(data.target[:count]))


def a_loader(count=400, batch=40):
    return DataLoader(digits(count), batch, shuffle=True)


def a_model(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(256, 10))


def an_explosive_model():
    """A deep net without norms that knows digits, and whose loss is not finite after a few steps of SGD at lr 1."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hidden = [layer for _ in range(6) for layer in (nn.Linear(64, 64), nn.ReLU())]
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), *hidden, nn.Linear(64, 10))
        optimizer, batches = torch.optim.Adam(model.parameters(), 0.003), list(a_loader(1000, 100))
        for images, labels in batches * 12:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return model


def hardened(model=None, loader=None, **settings):
    chosen = {"norm": "l2", "eps": 0.3, "steps": 2, "epochs": 1, "progress": False, **settings}
    return robusttune.harden(model or a_model(), loader or a_loader(), **chosen)


def weights_of(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Halves(rotation):
    """A task of somebody else's."""

    name = "halves"
