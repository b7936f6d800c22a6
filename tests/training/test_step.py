"""One step of an optimiser, of one or several batches."""

import copy

import pytest
import torch
from short_runs import digits, hardened
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained


def test_accumulated_batches_make_the_step_of_one_large_batch():
    """Without batch norm, with the attack and the views taken out, two halves give what the whole gives."""
    images, labels = digits(80).tensors
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    whole, halves = copy.deepcopy(model), copy.deepcopy(model)
    settings = {"tasks": None, "eps": 0.0, "eps_ramp": False, "ema": 0, "augment": "none", "lr": 0.1}
    hardened(whole, [(images, labels)], **settings)
    hardened(halves, [(images[:40], labels[:40]), (images[40:], labels[40:])], accumulate=2, **settings)
    assert torch.allclose(whole[1].weight, halves[1].weight, atol=1e-6)
    assert not torch.allclose(whole[1].weight, model[1].weight, atol=1e-4)
