"""Devices and dtypes of a model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def placed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Move the model to a device, and back afterwards."""
    home = device_of(model)
    if home != device:
        model.to(device)
    try:
        yield
    finally:
        if home != device:
            model.to(home)


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter or buffer; the CPU if it has none."""
    return next((tensor.device for tensor in tensors_of(model)), torch.device("cpu"))


def dtype_of(model: nn.Module) -> torch.dtype:
    """The floating-point type of the model's first parameter."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def chosen_device(model: nn.Module, device: str | torch.device) -> torch.device:
    """The device to work on: the one asked for; with "auto", the model's own, or for one on the CPU the accelerator.

    Raises:
        ValueError: no such device here, or the model sits on another accelerator than the one asked for.
    """
    check_module(model)
    home = device_of(model)
    accelerator = available_accelerator()
    if device == "auto":
        return _indexed(accelerator) if accelerator is not None and home.type == "cpu" else home
    asked = _parsed(device)
    if asked.type != "cpu" and (accelerator is None or accelerator.type != asked.type):
        have = "only the CPU" if accelerator is None else f"the CPU and {accelerator.type}"
        raise ValueError(
            f"device={str(asked)!r} was asked for, but torch sees {have} here: pass device='cpu' or 'auto'"
        )
    asked = _indexed(asked)
    if home.type != "cpu" and home != asked:
        raise ValueError(
            f"the model is on {home}, but device={str(asked)!r} was asked for: move the model, or leave device out"
        )
    return asked


def available_accelerator() -> torch.device | None:
    """The accelerator of this machine, if there is one that works."""
    try:
        return torch.accelerator.current_accelerator(check_available=True)
    except TypeError:  # torch 2.6 names what it was built for, whether it is there or not
        return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None


def _parsed(device: Any) -> torch.device:
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device={device!r} is no device: pass 'auto', 'cpu', 'cuda' or 'cuda:1'") from error


def _indexed(device: torch.device) -> torch.device:
    """The device with its number, as tensors on it name it."""
    if device.type in ("cpu", "mps") or device.index is not None:
        return device
    return torch.device(device.type, torch.accelerator.current_device_index())


def tensors_of(model: nn.Module) -> Iterator[Tensor]:
    """All parameters and buffers of a model."""
    yield from model.parameters()
    yield from model.buffers()


def check_module(model: Any) -> None:
    """Raise a ValueError for what is not a module that has weights."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"the model is a {type(model).__name__}, but a torch.nn.Module is needed")
    if device_of(model).type == "meta":
        raise ValueError("the model is on the meta device, so it has no weights: load them first, as with to_empty")
    if any(tensor.is_inference() for tensor in tensors_of(model)):
        raise ValueError(
            "the model's weights were made in inference mode, which forbids gradients for good: make or load the model "
            "outside torch.inference_mode()"
        )
