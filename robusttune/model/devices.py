"""Devices and dtypes of a model."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from robusttune.model.undoing import undone
from robusttune.types import DeviceLike, says, shown


@contextmanager
def placed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Move the model to a device, and back afterwards."""
    home = device_of(model)
    if home != device:
        model.to(device)
    with undone(lambda: model.to(home) if home != device else None):
        yield


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's first parameter or buffer; the CPU if it has none."""
    return next((tensor.device for tensor in tensors_of(model)), torch.device("cpu"))


def dtype_of(model: nn.Module) -> torch.dtype:
    """Return the type of the model's first floating-point parameter; float32 if it has none."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def chosen_device(model: nn.Module, device: DeviceLike) -> torch.device:
    """Return the device to work on.

    Args:
        model: a model whose weights lie on one device.
        device: "auto" for the model's device, or the accelerator if the model is on the CPU; or any other device.

    Raises:
        ValueError: this machine has no such device, or the model is on another accelerator.
    """
    check_module(model)
    home = device_of(model)
    accelerator = available_accelerator()
    if says(device, "auto"):
        return _indexed(accelerator) if accelerator is not None and home.type == "cpu" else home
    asked = _parsed(device)
    if asked.type != "cpu" and (accelerator is None or accelerator.type != asked.type):
        have = "only the CPU" if accelerator is None else f"the CPU and {accelerator.type}"
        raise ValueError(
            f"device={str(asked)!r} was asked for, but torch sees {have} here: pass device='cpu' or 'auto'"
        )
    # The current device may be another one, as `distributed.local_device` changes it.
    asked = home if asked.index is None and asked.type == home.type else _indexed(asked)
    if home.type != "cpu" and home != asked:
        raise ValueError(
            f"the model is on {home}, but device={str(asked)!r} was asked for: move the model, or leave device out"
        )
    return asked


def available_accelerator() -> torch.device | None:
    """Return the accelerator of this machine; None if there is none that works."""
    try:
        return torch.accelerator.current_accelerator(check_available=True)
    except TypeError:  # torch 2.6 returns the accelerator it was built for, present or not
        return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None


def _parsed(device: DeviceLike) -> torch.device:
    try:
        return torch.device(device)
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"device={shown(device)} is no device: pass 'auto', 'cpu', 'cuda' or 'cuda:1'") from error


def _indexed(device: torch.device) -> torch.device:
    """Return the device with its number, as tensors on it name it."""
    if device.type in ("cpu", "mps") or device.index is not None:
        return device
    return torch.device(device.type, torch.accelerator.current_device_index())


def tensors_of(model: nn.Module) -> Iterator[Tensor]:
    """Iterate over all parameters and buffers of a model."""
    yield from model.parameters()
    yield from model.buffers()


def check_module(model: nn.Module, name: str = "the model") -> None:
    """Raise a ValueError unless a module, by default the model, is a torch.nn.Module whose weights can be computed with."""
    if not isinstance(model, nn.Module):
        hint = ": robusttune.load(folder) makes that of a run" if isinstance(model, str | os.PathLike) else ""
        raise ValueError(f"{name} is a {type(model).__name__}, but a torch.nn.Module is needed{hint}")
    if getattr(type(model), "forward", None) is nn.Module.forward and "forward" not in vars(model):
        raise ValueError(
            f"{name} is a {type(model).__name__}, which has no forward(), so it cannot be called: pass the module "
            "that does"
        )
    lazy = next((name for name, parameter in model.named_parameters() if is_lazy(parameter)), None)
    if lazy is not None:
        raise ValueError(
            f"the weight {lazy!r} is lazy and has no values yet: run the model once, on images of the right shape"
        )
    exported = next((name for name, module in model.named_modules() if _has_fixed_mode(module)), None)
    if exported is not None:
        raise ValueError(
            f"{repr(exported) if exported else 'the model'} comes from torch.export and cannot change between train and eval "
            "mode: pass the Python module that was exported"
        )
    if device_of(model).type == "meta":
        raise ValueError(f"{name} is on the meta device, so it has no weights: load them first, as with to_empty")
    if any(tensor.is_inference() for tensor in tensors_of(model)):
        raise ValueError(
            "the model's weights were created in inference mode, so they can never have gradients: create or load the model "
            "outside torch.inference_mode()"
        )


def _has_fixed_mode(module: nn.Module) -> bool:
    """Return True for a module of `torch.export`, whose `train` and `eval` raise a NotImplementedError."""
    return str(getattr(vars(module).get("eval"), "__module__", "")).startswith("torch.export.")
