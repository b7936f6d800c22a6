"""A model with parts that are frozen on purpose, its images, and its state."""

import torch
from torch import nn


def model_with_frozen_parts():
    """A model in train mode, of which one batch norm is in eval mode and one weight is frozen, on purpose."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.Sequential(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.Dropout(0.5)),
            nn.Flatten(),
            nn.LazyLinear(6),
        )
        model(torch.rand(2, 3, 7, 8))
    model[1].eval()
    model[0].weight.requires_grad_(False)
    return model


def images():
    return torch.rand(4, 3, 7, 8, generator=torch.Generator().manual_seed(1))


def state(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def same_state(model, before):
    after = model.state_dict()
    return list(after) == list(before) and all(torch.equal(after[key], before[key]) for key in before)
