"""A small model in a state of its own, three ways to use it, and the check that a refusal changes nothing."""

import random
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from robusttune import RobustLoss, ThreatModel, evaluate, harden
from robusttune.data.batches import unpacked

CLASSES = 5


def small_model(channels=3, classes=CLASSES, *end):
    """A classifier with all that must come back as it was: frozen weights, modes, gradients and the user's own hook."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        layers = [nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5)]
        model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes), *end)
        model[0].weight.requires_grad_(False)
        model[3].eval()
        model(torch.rand(2, channels, 8, 8)).square().sum().backward()
    model[2].register_forward_hook(lambda *_: None)
    return model


def images(*shape, seed=0):
    return torch.rand(*(shape or (8, 3, 8, 8)), generator=torch.Generator().manual_seed(seed))


def labels():
    return torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])


GOOD = (images(), labels())


def tensor_bytes(tensor):
    """What tells a tensor's contents, NaN included."""
    if tensor is None or is_lazy(tensor) or tensor.is_meta:
        return None
    return tensor.dtype, tuple(tensor.shape), tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes()


def everything(model):
    """All that a model and this process hold that could be changed."""
    kind, keys, *position = np.random.get_state()
    chance = torch.get_rng_state().numpy().tobytes(), random.getstate(), (kind, keys.tobytes(), *position)
    if not isinstance(model, nn.Module):
        return chance
    parameters = [
        (name, id(p), p.requires_grad, id(p.grad), tensor_bytes(p.grad)) for name, p in model.named_parameters()
    ]
    modules = [
        (
            name,
            module.training,
            {key: list(held) for key, held in vars(module).items() if "hook" in key and isinstance(held, dict)},
        )
        for name, module in model.named_modules()
    ]
    attributes = [sorted(vars(module)) for module in model.modules()]
    state = {key: tensor_bytes(value) for key, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    return chance, parameters, modules, attributes, state


@contextmanager
def unchanged(model):
    before = everything(model)
    yield
    assert everything(model) == before


def hardened(model, loader, **settings):
    return harden(model, loader, **{"epochs": 1, "tasks": None, "steps": 1, "progress": False, **settings})


def one_loss(model, loader, **settings):
    """What a loop of the user's own does with the first batch."""
    first, own = unpacked(next(iter(loader)))
    robust_loss = RobustLoss(model, ThreatModel("linf", 0.1), images=first, **{"tasks": None, "steps": 1, **settings})
    return robust_loss(first, own)


def evaluated(model, loader, **settings):
    return evaluate(model, loader, "clean", **{"progress": False, **settings})


def refused(way, match, *, model=None, loader=None, **settings):
    model = small_model() if model is None else model
    with unchanged(model), pytest.raises(ValueError, match=match):
        way(model, [GOOD] if loader is None else loader, **settings)
