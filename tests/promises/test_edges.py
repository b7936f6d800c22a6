"""Numbers at the edge, memory that runs out, several threads, calls inside calls: the right result, or a refusal in words."""

import re
from functools import partial

import pytest
import torch
from guarded import GOOD, small_model, unchanged
from torch import nn

import robusttune
from robusttune import RobustLoss, ThreatModel
from robusttune.evaluations.sweep import sweep

SETTINGS = {"tasks": None, "steps": 1, "epochs": 1, "progress": False, "device": "cpu"}
EVALUATIONS = ("clean", partial(sweep, steps=5))


def linear(scale=1.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    with torch.no_grad():
        model[1].weight.mul_(scale)
    return model


def evaluated(model, loader=(GOOD,), **settings):
    return robusttune.evaluate(model, list(loader), EVALUATIONS, progress=False, device="cpu", **settings)


def finite(model):
    return all(bool(torch.isfinite(each).all()) for each in model.state_dict().values())


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("call", [lambda model, loader: robusttune.harden(model, loader, **SETTINGS), evaluated])
def test_images_that_are_not_finite_are_refused(call, value):
    images, labels = GOOD[0].clone(), GOOD[1]
    images[3, 0, 2, 2] = value
    model = small_model()
    with unchanged(model), pytest.raises(ValueError, match="images hold NaN or infinite values"):
        call(model, [(images, labels)])


@pytest.mark.parametrize("call", [lambda model, loader: robusttune.harden(model, loader, **SETTINGS), evaluated])
def test_weights_that_are_not_finite_are_refused(call):
    model = linear()
    with torch.no_grad():
        model[1].weight[0, 0] = torch.nan
    with unchanged(model), pytest.raises(ValueError, match="answers the first images with NaN"):
        call(model, [GOOD])


def test_a_loss_beyond_half_precision_is_an_error_and_the_model_is_as_before():
    model = linear(1e5)
    with unchanged(model), pytest.raises(FloatingPointError, match="the loss was not finite in batch 1"):
        robusttune.harden(model, [GOOD] * 4, precision="fp16", lr=0.01, **SETTINGS)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_radius_of_0_attacks_nothing(norm):
    model = linear()
    records = evaluated(model, norm=norm, eps=0.0)
    attacked = records.where("sweep", norm=norm, eps=0.0)
    assert attacked
    assert {record.value for record in attacked} == {records[0].value}
    robusttune.harden(model, [GOOD], norm=norm, eps=0.0, lr=0.01, **SETTINGS)
    assert finite(model)


def test_a_model_whose_gradient_is_0_everywhere_is_trained_and_measured_without_nan():
    class Deaf(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(3, 5)

        def forward(self, images):
            return self.last(images.mean((2, 3)) * 0)

    model = Deaf()
    robusttune.harden(model, [GOOD] * 2, lr=0.01, **SETTINGS)
    assert finite(model)
    assert all(0 <= record.value <= 1 for record in evaluated(model) if record.metric == "accuracy")


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_constant_images_are_trained_on_and_measured_without_nan(value):
    model, loader = linear(), [(torch.full((8, 3, 8, 8), value), GOOD[1])]
    robusttune.harden(model, loader, lr=0.01, **SETTINGS)
    assert finite(model)
    evaluated(model, loader)


@pytest.mark.sample(1)
@pytest.mark.parametrize("objective", ["adversarial", "trades", "mart"])
def test_logits_of_10_000_are_trained_and_measured_without_nan(objective):
    model = linear(3e4)
    assert float(model(GOOD[0]).detach().abs().max()) > 1e4
    robusttune.harden(model, [GOOD] * 2, lr=1e-4, objective=objective, **SETTINGS)
    assert finite(model)
    assert evaluated(model)


class Small(nn.Module):
    """A model on a device whose memory holds the activations of three images; it counts the images of each such call."""

    def __init__(self):
        super().__init__()
        self.inner, self.seen = linear(), []

    def forward(self, images):
        if len(images) > 3 and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("tried to allocate 2.00 GiB")
        self.seen += [len(images)] * torch.is_grad_enabled()
        return self.inner(images)


@pytest.mark.parametrize("before_the_first_step", [True, False])
def test_memory_that_runs_out_is_an_error_that_names_a_micro_batch_that_fits(before_the_first_step):
    model, more = Small(), {"lr": 0.01, "eps_ramp": "auto" if before_the_first_step else False}
    with (
        unchanged(model),
        pytest.raises(
            torch.OutOfMemoryError, match=r"whole batches go .* pass micro_batch=2, which was tried"
        ) as error,
    ):
        robusttune.harden(model, [GOOD] * 2, **more, **SETTINGS)
    fits = int(re.search(r"micro_batch=(\d+)", str(error.value))[1])
    model.seen.clear()
    robusttune.harden(model, [GOOD] * 2, micro_batch=fits, val_loader=[GOOD], **more, **SETTINGS)
    assert max(model.seen) == fits


def test_micro_batches_of_half_the_size_give_the_same_weights():
    def trained(micro_batch):
        model = linear()
        robusttune.harden(model, [GOOD] * 3, lr=0.05, eps=0.0, micro_batch=micro_batch, **SETTINGS)
        return model[1].weight.detach()

    whole = trained(None)
    assert all(torch.allclose(trained(size), whole, atol=1e-6) for size in (4, 2, 1))


def test_a_loss_may_be_called_while_another_one_attacks():
    outer = RobustLoss(linear(), ThreatModel("l2", 0.5), images=GOOD[0], tasks=None, steps=1)
    inner = RobustLoss(linear(2.0), ThreatModel("l2", 0.5), images=GOOD[0], tasks=None, steps=1)
    alone = float(inner(*GOOD)["loss"].detach()), float(outer(*GOOD)["loss"].detach())

    def attack(loss_of, images, threat, *, generator):
        inside.append(float(inner(*GOOD)["loss"].detach()))
        return images

    inside = []
    inner = RobustLoss(linear(2.0), ThreatModel("l2", 0.5), images=GOOD[0], tasks=None, steps=1)
    RobustLoss(linear(), ThreatModel("l2", 0.5), images=GOOD[0], tasks=None, attack=attack)(*GOOD)
    assert inside == [alone[0]]
