"""The model that comes back is the one that went in, and nothing about it has changed but its weights."""

import copy
import os
import signal
import threading

import pytest
import timm
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from traces import everything_but_weights, world

import robusttune
from robusttune import RobustLoss, ThreatModel

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained


class Own(nn.Module):
    """A plain module with what real ones have: tied weights, a normalised weight, a buffer that its forward replaces."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = weight_norm(nn.Conv2d(1, 6, 3, padding=1)), nn.BatchNorm2d(6)
        self.second, self.third = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)
        self.third.weight = self.second.weight
        self.classifier = spectral_norm(nn.Linear(6, 10))
        self.register_buffer("calls", torch.zeros(()))
        self.note = {"made": "by a user"}

    def forward(self, images):
        self.calls = self.calls + 1
        features = self.norm(self.first(images)).relu()
        return self.classifier(self.third(self.second(features).relu()).mean((2, 3)))


MODELS = {
    "resnet": (lambda: timm.create_model("test_resnet", in_chans=1, num_classes=10), 32),
    "vit": (lambda: timm.create_model("test_vit", in_chans=1, num_classes=10, img_size=32), 32),
    "own": (Own, 8),
}


def a_model(name="own"):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MODELS[name][0]()


def batches(side=8, count=3, size=6):
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.rand(size, 1, side, side, generator=generator), torch.randint(10, (size,), generator=generator))
        for _ in range(count)
    ]


def harden(model, loader=None, **settings):
    chosen = {"norm": "l2", "eps": 0.2, "steps": 1, "epochs": 1, "progress": False, **settings}
    return robusttune.harden(model, batches() if loader is None else loader, **chosen)


def state_of(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("root_trains", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", MODELS)
def test_all_but_the_weights_is_as_it_was(name, root_trains):
    model, side = a_model(name).train(root_trains), MODELS[name][1]
    first = next(model.parameters())
    first.grad = torch.ones_like(first)
    if name == "resnet":
        model.to(memory_format=torch.channels_last)
    outside = world()
    weights, before = state_of(model), everything_but_weights(model)
    assert harden(model, batches(side)) is model
    after = everything_but_weights(model)
    assert after.keys() == before.keys()
    assert {key for key in before if before[key] != after[key]} == set()
    assert world() == outside
    trained = state_of(model)
    assert {name: (t.shape, t.dtype) for name, t in trained.items()} == {
        n: (t.shape, t.dtype) for n, t in weights.items()
    }
    assert all(
        not torch.equal(trained[n], weights[n]) for n, p in model.named_parameters() if p.dim() > 1 and n in trained
    )
    fresh = a_model(name)
    fresh.load_state_dict(trained, strict=True)
    images = torch.rand(1, 1, side, side)
    with torch.no_grad():
        assert torch.allclose(fresh.eval()(images), model.eval()(images), atol=1e-5)


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_it_exports_as_before(name):
    model, side = a_model(name).eval(), MODELS[name][1]
    harden(model, batches(side))
    images = torch.rand(2, 1, side, side)
    exported = torch.export.export(model, (images,))
    assert torch.allclose(exported.module()(images), model(images), atol=1e-5)


def test_frozen_parameters_and_norms_stay_frozen():
    model = a_model("resnet").train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    norms[0].eval()
    norms[1].weight.requires_grad_(False)
    before = [norms[0].running_mean.clone(), norms[1].weight.clone(), norms[2].running_mean.clone()]
    harden(model, batches(32))
    assert torch.equal(norms[0].running_mean, before[0])
    assert torch.equal(norms[1].weight, before[1])
    assert not torch.equal(norms[2].running_mean, before[2])
    assert not norms[0].training
    assert norms[1].training
    assert not norms[1].weight.requires_grad


def test_a_root_in_eval_mode_trains_as_a_whole_and_every_flag_comes_back():
    model = a_model("resnet").eval()
    next(model.children()).train()
    flags = [module.training for module in model.modules()]
    before = state_of(model)
    harden(model, batches(32))
    assert [module.training for module in model.modules()] == flags
    moved = [
        name
        for name in before
        if name.endswith("running_mean") and not torch.equal(before[name], model.state_dict()[name])
    ]
    assert len(moved) == sum(name.endswith("running_mean") for name in before)


class Broken(list):
    def __init__(self, given, error):
        super().__init__(given)
        self.error = error

    def __iter__(self):
        for number, batch in enumerate(super().__iter__()):
            if number == 2:
                raise self.error
            yield batch


def raising(error):
    def raise_it(_):
        raise error

    return raise_it


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"loader": Broken(batches(), OSError("the disk is gone"))}, OSError),
        ({"loader": Broken(batches(), KeyboardInterrupt())}, KeyboardInterrupt),
        ({"on_epoch": raising(RuntimeError("no"))}, RuntimeError),
        ({"lr": 1e30, "clip_grad": None, "epochs": 20, "optimizer": "sgd"}, FloatingPointError),
    ],
    ids=["loader", "interrupt", "on_epoch", "non-finite"],
)
def test_any_failure_gives_the_old_weights_back(settings, error):
    model = a_model()
    before, rest, outside = state_of(model), everything_but_weights(model), world()
    with pytest.raises(error):
        harden(model, **settings)
    assert same(state_of(model), before)
    after = everything_but_weights(model)
    assert {key for key in before if rest.get(key) != after.get(key)} == set()
    assert world() == outside


def test_a_loss_that_is_not_finite_names_the_batch_and_what_to_do():
    with pytest.raises(FloatingPointError, match=r"not finite in batch \d+ of the epoch: lower lr= or clip_grad="):
        harden(a_model(), lr=1e30, optimizer="sgd", epochs=20)


def test_ctrl_c_in_the_middle_of_training_gives_the_old_weights_back(tmp_path):
    model, begun = a_model(), []
    before, handler = state_of(model), signal.signal(signal.SIGINT, signal.default_int_handler)

    def told(facts):
        if not begun:
            begun.append(threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)))
            begun[0].start()

    try:  # a shell's background jobs ignore the signal
        with pytest.raises(KeyboardInterrupt) as interrupt:
            harden(model, epochs=100_000, on_epoch=told, out=tmp_path / "run")
    finally:
        signal.signal(signal.SIGINT, handler)
    assert same(state_of(model), before)
    assert "pass resume=True" in getattr(interrupt.value, "__notes__", ["pass resume=True"])[-1]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    first, second, third = (state_of(harden(a_model(), seed=seed)) for seed in (0, 0, 1))
    assert same(first, second)
    assert not same(first, third)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_trains_where_gradients_are_off(mode):
    expected, model, loader = state_of(harden(a_model())), a_model(), batches()
    with mode():
        harden(model, loader)
    assert same(state_of(model), expected)


@pytest.mark.parametrize("name", MODELS)
def test_a_borrowed_model_is_as_it_was_after_each_step(name):
    model, side = a_model(name), MODELS[name][1]
    before = everything_but_weights(model)
    images, labels = batches(side)[0]
    robust_loss = RobustLoss(model, ThreatModel("l2", 0.1), steps=1, images=images)
    robust_loss(images, labels)
    after = everything_but_weights(model)
    assert {key for key in before if before[key] != after[key]} == set()


@pytest.mark.parametrize("fails", [False, True])
def test_evaluation_changes_nothing_at_all(fails):
    model = a_model("resnet").train()
    first = next(model.parameters())
    first.grad = torch.ones_like(first)
    before, rest, outside = state_of(model), everything_but_weights(model), world()
    loader = Broken(batches(32), OSError("the disk is gone")) if fails else batches(32)
    settings = {"which": "clean", "progress": False}
    if fails:
        with pytest.raises(OSError, match="disk"):
            robusttune.evaluate(model, loader, **settings)
    else:
        robusttune.evaluate(model, loader, **settings)
    assert same(state_of(model), before)
    assert everything_but_weights(model) == rest
    assert world() == outside


@pytest.mark.slow
def test_a_compiled_run_leaves_nothing_behind():
    model = a_model()
    outside, before = world(), everything_but_weights(model)
    harden(model, compile=True)
    assert everything_but_weights(model) == before
    assert world() == outside


def test_copies_of_a_hardened_model_work():
    model = harden(a_model())
    images = torch.rand(2, 1, 8, 8)
    twin = copy.deepcopy(model).eval()
    with torch.no_grad():
        assert torch.equal(twin(images), model.eval()(images))
