"""Warnings of pretext tasks that cannot be learnt from these images."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

import robusttune


def digits(*keep):
    data = pytest.importorskip("sklearn.datasets").load_digits()
    images, labels = torch.tensor(data.images / 16, dtype=torch.float32)[:, None], torch.tensor(data.target)
    rows = [n for n, label in enumerate(labels.tolist()) if not keep or label in keep]
    return Subset(TensorDataset(images, labels), rows)


def hardened_on(images, recwarn):
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)]
    loader = DataLoader(images, 40, shuffle=True)
    settings = {
        "tasks": {"rotation": 1.0},
        "attack_tasks": "none",
        "steps": 1,
        "eps": 0.05,
        "lr": 0.1,
        "progress": False,
    }
    robusttune.harden(nn.Sequential(*layers), loader, norm="l2", epochs=6, **settings)
    return [str(warning.message) for warning in recwarn.list]


@pytest.mark.filterwarnings("always:rotation's held-out accuracy")
def test_turns_that_mean_nothing_are_warned_of(recwarn):
    """Squares that look the same each way up, in as many brightnesses as there are classes."""
    places = torch.arange(8.0) - 3.5
    ring = torch.maximum(places[:, None].abs(), places.abs()) / 4
    labels = torch.arange(800) % 10
    shades = 0.05 + 0.09 * labels + 0.02 * torch.rand(800, generator=torch.Generator().manual_seed(0))
    told = hardened_on(TensorDataset((ring * shades[:, None, None])[:, None], labels), recwarn)
    assert len(told) == 1
    assert "rotation's held-out accuracy is" in told[0]
    assert "near the 25% of a guess" in told[0]
    assert "drop it with tasks=None" in told[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("always:rotation's held-out accuracy")
def test_turns_that_mean_something_are_not(recwarn):
    assert hardened_on(digits(), recwarn) == []
