"""Training in half precision."""

from contextlib import nullcontext

import pytest
import torch
from short_runs import a_loader, a_model, hardened
from torch.nn import functional as F

import robusttune

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_and_gives_single_back(precision):
    model = hardened(precision=precision, epochs=2)
    assert all(parameter.dtype == torch.float32 and parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in the user's autocast"])
def test_each_step_computes_with_the_weights_of_now(precision, inside):
    """Not with casts of earlier weights, which autocast keeps until the outermost of several contexts ends."""
    model, steps = a_model(), []
    short = torch.bfloat16 if precision == "bf16" else torch.float16

    def compare(layer, given, answers):
        if model.training and layer.weight.requires_grad:
            weight, bias = (each.detach().to(short) for each in (layer.weight, layer.bias))
            steps.append((torch.equal(answers, F.linear(given[0].to(short), weight, bias)), weight))

    with torch.autocast("cpu", short) if inside else nullcontext():
        if inside:
            model.eval()(torch.rand(2, 1, 8, 8))  # autocast keeps these casts, too
            model.train()
        model[-1].register_forward_hook(compare)
        settings = {
            "tasks": None,
            "norm": "linf",
            "eps": 0.1,
            "steps": 1,
            "optimizer": "sgd",
            "lr": 0.1,
            "device": "cpu",
        }
        robusttune.harden(model, a_loader(160), epochs=1, precision=precision, progress=False, **settings)
    assert len(steps) >= 4
    assert [right for right, _ in steps] == [True] * len(steps)
    assert not torch.equal(steps[0][1], steps[-1][1])


def test_the_users_autocast_computes_with_the_new_weights_afterwards():
    model, given = a_model().eval(), torch.rand(2, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        model(given)
        hardened(model, epochs=1, precision="fp32")
        inside = model(given)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(inside, model(given))
