"""A snapshot restores the state of a model in the same tensor objects."""

import pytest
import torch
from odd_models import observed, with_buffer
from torch import nn

from robusttune.model.snapshot import overwrite, same, snapshot


def test_a_tensor_is_the_same_object_with_the_same_values():
    model = observed()
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    restore = snapshot(model)
    model(torch.rand(2, 1, 8, 8))
    with torch.no_grad():
        model[2].weight.add_(1)
    model.register_buffer("new", torch.zeros(1))
    restore()
    after = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert all(after[name] is tensor and torch.equal(after[name], before[name]) for name, tensor in tensors.items())
    assert list(after) == list(tensors)
    assert not hasattr(model[0], "last")
    assert model[0].calls == 0


def test_tensors_that_have_not_changed_are_not_written_to():
    """So that the user may still call `backward` on a loss of before."""
    model = nn.Linear(2, 2)
    loss = model(torch.ones(1, 2)).square().sum()
    snapshot(model)()
    loss.backward()
    assert model.weight.grad is not None


def test_parameters_can_be_left_out():
    model = observed()
    restore = snapshot(model, weights=False)
    weight = model[2].weight.clone()
    model(torch.rand(2, 1, 8, 8))
    with torch.no_grad():
        model[2].weight.add_(1)
    restore()
    assert torch.equal(model[2].weight, weight + 1)
    assert float(model[0].count) == 0


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_the_buffers_of_a_scripted_part_are_restored():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.count = self.count + 1
            return images

    model = nn.Sequential(torch.jit.script(Counting()))
    restore = snapshot(model)
    model(torch.rand(1))
    assert float(model[0].count) == 1
    restore()
    assert float(model[0].count) == 0


@pytest.mark.parametrize("value", [torch.eye(3).to_sparse(), torch.rand(3).to(torch.float8_e4m3fn), torch.rand(2)])
def test_any_tensor_is_overwritten_in_place(value):
    model = with_buffer(torch.zeros_like(value) if value.layout == torch.strided else torch.eye(3).to_sparse() * 2)
    buffer = model.table
    overwrite(buffer, value)
    assert model.table is buffer
    assert torch.equal(buffer.to_dense().float(), value.to_dense().float())


def test_tensors_are_the_same_by_shape_type_and_values():
    one = torch.ones(3)
    assert same(one, one.clone())
    assert not same(one, torch.ones(1))
    assert not same(one, one.double())
    assert not same(one, torch.zeros(3))
    eighth = one.to(torch.float8_e4m3fn)
    assert same(eighth, eighth.clone())
    assert not same(eighth, torch.zeros(3).to(torch.float8_e4m3fn))
