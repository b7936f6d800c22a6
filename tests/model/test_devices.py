"""The device and the type of a model, and its way to a device and back."""

import pytest
import torch
from contexts import check, used_and_broken
from torch import nn

from robusttune.model import devices

CPU = torch.device("cpu")


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


def test_a_device_without_a_number_is_the_models_own_not_the_current_one(monkeypatch):
    monkeypatch.setattr(devices, "device_of", lambda model: torch.device("cuda:1"))
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)
    assert devices.chosen_device(nn.Linear(2, 2), "cuda") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="the model is on cuda:1, but device='cuda:0' was asked for: move the model"):
        devices.chosen_device(nn.Linear(2, 2), "cuda:0")


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
