"""Training in half precision."""

from contextlib import nullcontext
from functools import partial
from statistics import mean

import pytest
import torch
from short_runs import a_loader, a_model, digits, hardened
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset

import robusttune
from robusttune.evaluations.sweep import sweep
from robusttune.threat import ThreatModel

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


def gradients_of_attack(model, precision, tasks, images, labels):
    """The gradient toward each image that an attack gets in this format."""
    found = []

    def attack(loss_of, images, threat, *, generator):
        images = images.detach().requires_grad_()
        found.append(torch.autograd.grad(loss_of(images).sum(), images)[0])
        return images.detach()

    loss = robusttune.RobustLoss(model, ThreatModel("linf", 0.1), attack=attack, tasks=tasks, augment=None)
    with torch.autocast("cpu", torch.float16) if precision == "fp16" else nullcontext():
        loss(images, labels)
    return found[0].flatten(1)


@pytest.mark.parametrize("tasks", [None, {"rotation": 0.5}], ids=["class alone", "joint"])
def test_an_image_that_the_model_is_sure_of_has_a_gradient_in_fp16_too(tasks):
    """Its share of other classes is below the smallest number of fp16, so its gradient would be zero."""
    images, labels = digits(64).tensors
    model = hardened(epochs=4, precision="fp32", norm="linf", eps=0.02)
    logits = model.eval()(images)
    with torch.no_grad():  # margins of 20 to 24
        top = logits.topk(2).values
        model[-1].weight.mul_(20 / float((top[:, 0] - top[:, 1]).median()))
        model[-1].bias.mul_(20 / float((top[:, 0] - top[:, 1]).median()))
    labels = model(images).argmax(1)
    single, half = (gradients_of_attack(model, each, tasks, images, labels) for each in ("fp32", "fp16"))
    assert half.dtype == torch.float32
    known = single.norm(dim=1) > 0
    assert int(known.sum()) > 50
    lengths = [each[known].norm(dim=1, keepdim=True) for each in (single, half)]
    assert float((lengths[1] / lengths[0] - 1).abs().max()) < 0.05
    assert float((single[known] / lengths[0] * half[known] / lengths[1]).sum(1).min()) > 0.97


@pytest.mark.slow
def test_a_run_in_bf16_learns_as_much_as_one_in_fp32():
    """Judged by APGD with 50 steps on two losses, at the radius and past it, on digits that no run has seen."""
    data, found = digits(1797), {}
    unseen = DataLoader(Subset(data, range(1400, 1797)), 200)
    judges = ["clean", partial(sweep, norms=["linf"], eps=[0.1, 0.15])]
    for precision in ("fp32", "bf16"):
        runs = []
        for seed in range(3):
            loader = DataLoader(Subset(data, range(1400)), 64, shuffle=True)
            settings = {"norm": "linf", "eps": 0.1, "epochs": 8, "steps": None, "tasks": None, "seed": seed}
            model = hardened(a_model(seed), loader, precision=precision, **settings)
            records = robusttune.evaluate(model, unseen, judges, norm="linf", eps=0.1, progress=False)
            runs.append(
                [100 * each.value for each in records if each.metric == "accuracy" and each.setting.get("eps") != 0]
            )
        found[precision] = [mean(values) for values in zip(*runs, strict=True)]
        print(precision, *(f"{value:.1f}" for value in found[precision]))
    assert all(abs(one - other) < 5 for one, other in zip(*found.values(), strict=True))
    assert found["fp32"][0] > 80
