"""Splits of a loader: images held back from training."""

import re

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import robusttune
from robusttune.data.splits import held_back


def test_what_is_held_back_is_not_trained_on():
    data = TensorDataset(torch.arange(1000.0), torch.arange(1000))
    loader = DataLoader(data, 10, shuffle=True, drop_last=True, collate_fn=lambda rows: [int(row[1]) for row in rows])
    kept, held = held_back(loader, 0.05, seed=0)
    assert (kept.batch_size, kept.drop_last, held.drop_last) == (10, True, False)
    trained, judged = ({number for batch in each for number in batch} for each in (kept, held))
    assert len(judged) == 50
    assert trained | judged == set(range(1000))
    assert not trained & judged
    assert sorted(judged) == sorted(number for batch in held_back(loader, 0.05, seed=0)[1] for number in batch)
    assert next(iter(kept)) != next(iter(kept))  # still shuffled


@pytest.mark.parametrize(
    "loader",
    [
        [(1, 2)],
        DataLoader(TensorDataset(torch.arange(100)), 10),
        DataLoader(
            TensorDataset(torch.arange(1000)), 10, sampler=torch.utils.data.WeightedRandomSampler([1.0] * 1000, 1000)
        ),
    ],
    ids=["list", "small", "sampler"],
)
def test_nothing_is_held_back_where_it_cannot_be(loader):
    assert held_back(loader, 0.05, seed=0) == (loader, None)


def test_a_loader_too_small_to_hold_back_from_is_told(caplog):
    told = (
        r"pass val_loader= to choose the best one \(5% are held back of a plain DataLoader with at least 640 images\)"
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    loader = DataLoader(TensorDataset(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1])), 4)
    with caplog.at_level("INFO", "robusttune"):
        robusttune.harden(model, loader, tasks=None, epochs=1, progress=False)
        assert re.search(told, caplog.text)
        caplog.clear()
        robusttune.harden(model, loader, val_loader=loader, tasks=None, epochs=1, progress=False)
        assert not re.search(told, caplog.text)
