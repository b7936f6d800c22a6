"""Whatever is borrowed is given back exactly as it was, also when something is raised meanwhile."""

import copy
import random

import numpy as np
import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from robusttune.model import borrowing, checks, devices
from robusttune.run import randomness

CPU = torch.device("cpu")


class Interrupted(KeyboardInterrupt):
    """A Ctrl-C of our own, which pytest does not take for the user's."""


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


def flags(model):
    return [module.training for module in model.modules()]


def state(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def same_state(model, before):
    after = model.state_dict()
    return list(after) == list(before) and all(torch.equal(after[key], before[key]) for key in before)


def used_and_broken(manager, inside=lambda: None):
    """Enter a context manager, do something, and leave it once regularly and once by an exception."""
    with manager():
        inside()
    for error in (RuntimeError, Interrupted):
        with pytest.raises(error), manager():
            fail(error, inside)


def fail(error, first):
    first()
    raise error


# Flags


@pytest.mark.parametrize("training", [True, False])
def test_every_submodule_gets_its_own_mode_back(training):
    model = model_with_frozen_parts()
    model.training = training
    before = flags(model)
    assert True in before
    assert False in before
    for change in (model.eval, model.train):
        used_and_broken(lambda: borrowing.modes_kept(model), change)
        assert flags(model) == before


def test_evaluating_puts_all_in_eval_mode_and_leaves_frozen_batch_norms_frozen_after():
    model = model_with_frozen_parts()
    before = flags(model)
    used_and_broken(lambda: borrowing.evaluating(model), lambda: check(not any(flags(model))))
    assert flags(model) == before


def check(condition):
    assert condition


def test_trainable_leaves_the_submodules_of_a_model_in_train_mode_as_they_are():
    model = model_with_frozen_parts()
    before = flags(model)
    used_and_broken(lambda: borrowing.trainable(model), lambda: check(flags(model) == before))
    assert flags(model) == before


def test_trainable_trains_all_of_a_model_in_eval_mode():
    model = model_with_frozen_parts().eval()
    used_and_broken(lambda: borrowing.trainable(model), lambda: check(all(flags(model))))
    assert not any(flags(model))


def test_frozen_parameters_get_their_own_flag_back():
    model = model_with_frozen_parts()
    before = [parameter.requires_grad for parameter in model.parameters()]
    assert set(before) == {True, False}

    def all_closed():
        assert not any(parameter.requires_grad for parameter in model.parameters())

    used_and_broken(lambda: borrowing.frozen(model.parameters()), all_closed)
    assert [parameter.requires_grad for parameter in model.parameters()] == before


# Running statistics


NORM_LAYERS = [
    lambda: nn.BatchNorm2d(3),
    lambda: nn.BatchNorm2d(3, momentum=None),
    lambda: BatchNormAct2d(3),
    lambda: nn.InstanceNorm2d(3, track_running_stats=True),
]


@pytest.mark.parametrize("layer", NORM_LAYERS)
def test_statistics_are_used_but_not_recorded(layer):
    model, inputs = layer(), images()
    before, untouched = state(model), copy.deepcopy(model)
    outputs = []
    used_and_broken(lambda: borrowing.statistics_untouched(model), lambda: outputs.append(model(inputs)))
    assert same_state(model, before)
    assert torch.equal(outputs[0], untouched(inputs))
    assert model.track_running_stats
    model(inputs)
    assert same_state(model, state(untouched))
    assert not same_state(model, before)


def test_statistics_of_a_layer_in_eval_mode_are_used_as_ever():
    layer, inputs = nn.BatchNorm2d(3), images()
    layer(inputs)
    layer.eval()
    expected, before = layer(inputs), state(layer)
    with borrowing.statistics_untouched(layer):
        assert torch.equal(layer(inputs), expected)
    assert same_state(layer, before)
    assert layer.track_running_stats


def test_layers_without_statistics_stay_without():
    layer = nn.BatchNorm2d(3, track_running_stats=False)
    with borrowing.statistics_untouched(layer):
        layer(images())
    assert not layer.track_running_stats
    assert layer.running_mean is None


def test_statistics_stay_untouched_in_a_whole_model_with_frozen_parts():
    model = model_with_frozen_parts()
    before = state(model)
    with borrowing.statistics_untouched(model), borrowing.statistics_untouched(model):
        model(images())
    assert same_state(model, before)
    assert all(module.track_running_stats for module in model.modules() if isinstance(module, nn.BatchNorm2d))


# Gradients


def test_gradients_come_back_as_the_same_tensors():
    model = model_with_frozen_parts()
    model(images()).sum().backward()
    kept = [parameter.grad for parameter in model.parameters()]
    values = [None if gradient is None else gradient.clone() for gradient in kept]
    assert None in kept

    def another_step():
        assert all(parameter.grad is None for parameter in model.parameters())
        model(images()).square().sum().backward()

    used_and_broken(lambda: borrowing.gradients_kept(model), another_step)
    for parameter, gradient, value in zip(model.parameters(), kept, values, strict=True):
        assert parameter.grad is gradient
        assert gradient is None or torch.equal(gradient, value)


@pytest.mark.parametrize("outer", [torch.no_grad, torch.inference_mode])
def test_gradients_can_be_computed_within_any_mode(outer):
    weight = nn.Parameter(torch.ones(3))
    with outer():
        with borrowing.differentiable():
            (gradient,) = torch.autograd.grad((weight * 2).sum(), weight)
        assert not torch.is_grad_enabled()
    assert torch.equal(gradient, torch.full((3,), 2.0))


def test_attacking_freezes_evaluates_and_gives_all_back():
    model, inputs = model_with_frozen_parts(), images().requires_grad_()
    before = flags(model), [parameter.requires_grad for parameter in model.parameters()], state(model)

    def attacked():
        assert not any(flags(model))
        torch.autograd.grad(model(inputs).sum(), inputs)

    with torch.no_grad():
        used_and_broken(lambda: borrowing.attacking(model, model.parameters(), CPU), attacked)
    assert (flags(model), [parameter.requires_grad for parameter in model.parameters()]) == before[:2]
    assert same_state(model, before[2])


def test_weights_cast_while_attacking_are_not_reused_in_training():
    # A frozen forward and a training forward in one autocast block lose the gradient of the weight (pytorch#112583).
    model, inputs = nn.Linear(4, 3), torch.rand(2, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with borrowing.attacking(model, model.parameters(), CPU):
            assert model(inputs).dtype == torch.bfloat16
        model(inputs).float().sum().backward()
    assert model.weight.grad is not None


# Failure


def spoil(model):
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.add_(1)


@pytest.mark.parametrize("error", [RuntimeError, FloatingPointError, Interrupted, SystemExit])
def test_weights_and_buffers_are_restored_on_any_failure(error):
    model = model_with_frozen_parts()
    before, parameters, own_flags = state(model), list(model.parameters()), flags(model)
    with pytest.raises(error), borrowing.restored_on_failure(model):
        fail(error, lambda: spoil(model))
    assert same_state(model, before)
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    assert all(isinstance(parameter, nn.Parameter) and parameter.is_leaf for parameter in model.parameters())
    assert flags(model) == own_flags


def test_weights_are_kept_without_failure():
    model = model_with_frozen_parts()
    before = state(model)
    with borrowing.restored_on_failure(model):
        spoil(model)
    assert not same_state(model, before)


class Counting(nn.Module):
    """A model that puts a new tensor in the place of its buffer at each forward, as some of timm's and users' do."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, inputs):
        self.count = self.count + 1
        return inputs


def test_buffers_that_a_forward_replaces_are_restored_too():
    model = nn.Sequential(Counting())
    buffer = model[0].count
    with pytest.raises(Interrupted), borrowing.restored_on_failure(model):
        fail(Interrupted, lambda: model(images()))
    assert float(model[0].count) == 0
    assert model[0].count is buffer


def test_a_borrowed_model_comes_back_but_for_its_weights():
    model = model_with_frozen_parts()
    model(images()).sum().backward()
    kept = [parameter.grad for parameter in model.parameters()]
    before, own_flags, chance = state(model), flags(model), torch.get_rng_state()
    with borrowing.borrowed(model, CPU, seed=3):
        model.eval()
        spoil(model)
        torch.rand(3)
    assert flags(model) == own_flags
    assert torch.equal(torch.get_rng_state(), chance)
    assert all(parameter.grad is gradient for parameter, gradient in zip(model.parameters(), kept, strict=True))
    assert not same_state(model, before)


# Chance


def all_states():
    return torch.get_rng_state().tolist(), random.getstate(), [str(part) for part in np.random.get_state()]


def some_draws():
    return torch.rand(2).tolist(), random.random(), np.random.random(2).tolist()


def test_random_states_are_seeded_within_and_untouched_outside():
    before = all_states()
    used_and_broken(lambda: randomness.own_randomness(0), some_draws)
    assert all_states() == before
    found = []
    for seed in (1, 1, 2):
        with randomness.own_randomness(seed):
            found.append(some_draws())
    assert found[0] == found[1]
    assert all(one != other for one, other in zip(found[0], found[2], strict=True))
    assert all_states() == before


@pytest.mark.parametrize("seed", [0, -1, 2**32, 2**62])
def test_any_seed_will_do(seed):
    found = []
    for _ in range(2):
        with randomness.own_randomness(seed):
            found.append(some_draws())
    assert found[0] == found[1]


# Devices


def test_the_device_is_the_models_own_unless_told_otherwise():
    model = nn.Linear(2, 2)
    assert devices.device_of(model) == CPU
    assert devices.device_of(nn.Flatten()) == CPU
    for asked in ("cpu", CPU):
        assert devices.chosen_device(model, asked) == CPU
    if not torch.accelerator.is_available():
        assert devices.chosen_device(model, "auto") == CPU


def test_a_device_that_is_not_here_is_refused(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: None)
    with pytest.raises(ValueError, match="device='cuda' was asked for, but torch sees only the CPU here: pass"):
        devices.chosen_device(nn.Linear(2, 2), "cuda")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("cuda"))
    with pytest.raises(ValueError, match="device='mps' was asked for, but torch sees the CPU and cuda here"):
        devices.chosen_device(nn.Linear(2, 2), "mps")


@pytest.mark.parametrize("device", ["gpu", "cuda:one", None, 1.5])
def test_what_is_no_device_is_refused(device):
    with pytest.raises(ValueError, match="is no device: pass 'auto', 'cpu', 'cuda'"):
        devices.chosen_device(nn.Linear(2, 2), device)


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_a_model_without_weights_is_refused(device):
    with pytest.raises(ValueError, match="the model is on the meta device, so it has no weights: load them first"):
        devices.chosen_device(nn.Linear(2, 2, device="meta"), device)


def test_a_model_on_another_accelerator_is_refused(monkeypatch):
    monkeypatch.setattr(devices, "device_of", lambda model: torch.device("cuda:1"))
    with pytest.raises(ValueError, match="the model is on cuda:1, but device='cpu' was asked for: move the model"):
        devices.chosen_device(nn.Linear(2, 2), "cpu")


class Movable(nn.Linear):
    """A model that notes where it is sent, since there may be only one device here."""

    def __init__(self):
        super().__init__(2, 2)
        self.moves = []

    def to(self, device):
        self.moves.append(device)
        return self


def test_a_model_moves_to_the_device_and_back():
    model, away = Movable(), torch.device("cuda:0")
    used_and_broken(lambda: devices.placed(model, away), lambda: check(model.moves[-1] == away))
    assert model.moves == [away, CPU] * 3
    model.moves.clear()
    used_and_broken(lambda: devices.placed(model, CPU))
    assert model.moves == []


def test_the_type_of_a_model_is_that_of_its_floats():
    assert devices.dtype_of(nn.Linear(2, 2)) == torch.float32
    assert devices.dtype_of(nn.Linear(2, 2, dtype=torch.bfloat16)) == torch.bfloat16
    assert devices.dtype_of(nn.Flatten()) == torch.float32


# Models


def test_batch_norms_count_only_where_they_use_the_batch():
    model = model_with_frozen_parts()
    assert checks.has_batch_norm(model)
    model[2][1].eval()
    assert not checks.has_batch_norm(model)
    assert not checks.has_batch_norm(nn.Sequential(nn.GroupNorm(1, 4)))


def wrapped_in(kind):
    wrapper = kind.__new__(kind)
    nn.Module.__init__(wrapper)
    return wrapper


def compiled_in_place():
    model = nn.Linear(2, 2)
    model.compile()
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: "resnet18", r"the model is a str, but a torch\.nn\.Module is needed"),
        (
            lambda: wrapped_in(nn.parallel.DistributedDataParallel),
            r"wrapped in DistributedDataParallel: pass model\.module",
        ),
        (lambda: wrapped_in(nn.DataParallel), r"wrapped in DataParallel: pass model\.module"),
        (lambda: torch.compile(nn.Linear(2, 2)), r"compiled by torch\.compile: pass model\._orig_mod"),
        (compiled_in_place, r"compiled in place by model\.compile\(\)"),
        (lambda: nn.Linear(2, 2).requires_grad_(False), r"no parameter of the model requires grad.*requires_grad_\(\)"),
        (nn.Flatten, "no parameter of the model requires grad"),
    ],
)
def test_models_that_cannot_be_borrowed_are_refused_in_words(model, message):
    with pytest.raises(ValueError, match=message):
        checks.check_model(model())


def test_a_plain_model_is_taken():
    checks.check_model(model_with_frozen_parts())
