"""Handwritten digits of 8 by 8 pixels, and a small convolutional network for them: what tests of frameworks share."""

from functools import cache

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from robusttune import RobustLoss, ThreatModel

THREAT = ThreatModel("linf", 0.1)
SETTINGS = {"tasks": {"rotation": 0.5}, "attack_tasks": "none", "steps": 2, "seed": 5}


def digits(first, last):
    """Images (N,1,8,8) on [0,1] and labels (N,)."""
    images, labels = _all_digits()
    return images[first:last], labels[first:last]


@cache
def _all_digits():
    data = pytest.importorskip("sklearn.datasets").load_digits()
    return torch.tensor(data.images / 16, dtype=torch.float32)[:, None], torch.tensor(data.target)


def digit_loader(first, last, size=16):
    """Batches of digits, in their order."""
    return DataLoader(TensorDataset(*digits(first, last)), size)


def tiny_net():
    """The same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()
        return nn.Sequential(*body, nn.Linear(288, 10))


def trained_net(steps=40):
    """A network that knows most digits."""
    net = tiny_net()
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    images, labels = digits(0, 512)
    with torch.random.fork_rng():
        for step in range(steps):
            rows = slice(64 * step % 512, 64 * step % 512 + 64)
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[rows]), labels[rows]).backward()
            optimizer.step()
    net.zero_grad()
    return net


def a_robust_loss(model, **settings):
    """Of a model that takes digits."""
    return RobustLoss(model, THREAT, images=digits(0, 2)[0], **{**SETTINGS, **settings})


def same_tensors(first, second):
    """True where two state_dicts have the same keys and the same values to the bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
