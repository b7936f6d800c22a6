"""One step of an optimiser, of one or several batches."""

import copy

import pytest
import torch
from short_runs import a_loader, a_model, digits, hardened, same, weights_of
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


def test_a_batch_taken_in_several_steps_trains_as_smaller_batches_do():
    images, labels = digits(80).tensors
    settings = {"tasks": None, "steps": 2, "epochs": 2, "lr": 0.1}
    facts, val = [], a_loader(80)
    whole = hardened(a_model(), [(images, labels)], update_batch=40, val_loader=val, on_epoch=facts.append, **settings)
    halves = hardened(a_model(), [(images[::2], labels[::2]), (images[1::2], labels[1::2])], val_loader=val, **settings)
    assert same(weights_of(whole), weights_of(halves))
    assert [each["step"] for each in facts] == [2, 4]


def test_cutting_and_joining_batches_at_once_is_refused():
    with pytest.raises(
        ValueError, match=r"update_batch=8 cuts batches and accumulate=2 joins them: pass one of the two"
    ):
        hardened(update_batch=8, accumulate=2)
    with pytest.raises(ValueError, match=r"update_batch is 0, but .* at least 1"):
        hardened(update_batch=0)
