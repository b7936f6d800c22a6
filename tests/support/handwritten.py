"""Handwritten digits, a loader of them, and a small net that withstands some attacks on them."""

from functools import lru_cache

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import robusttune


@lru_cache(maxsize=1)
def digits():
    images, labels = load_digits(return_X_y=True)
    return torch.from_numpy(images).float().view(-1, 1, 8, 8) / 16, torch.from_numpy(labels)


@lru_cache(maxsize=1)
def hardened():
    """A small net that withstands some attacks, trained on real digits."""
    torch.manual_seed(0)
    images, labels = digits()
    layers = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2), nn.ReLU(), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(144, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.005)
    loss = robusttune.RobustLoss(model, robusttune.ThreatModel("linf", 0.15), tasks=None, steps=3, images=images[:2])
    for step in range(60):
        rows = torch.randint(300, len(images), (128,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss(images[rows], labels[rows])["loss"].backward()
        optimizer.step()
    return model.eval()


def loader(count=60, batch_size=25, shuffle=False):
    images, labels = digits()
    return DataLoader(TensorDataset(images[:count], labels[:count]), batch_size, shuffle=shuffle)
