"""A borrowed model is given back exactly as it was, also when an exception is raised."""

import copy

import pytest
import torch
from contexts import Interrupted, check, fail, used_and_broken
from frozen_parts import images, model_with_frozen_parts, same_state, state
from timm.layers import BatchNormAct2d
from torch import nn

from robusttune.model import borrowing

CPU = torch.device("cpu")


def flags(model):
    return [module.training for module in model.modules()]


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
