"""Borrowing a user's model, device and random state, and giving them back as they were."""

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

CONVOLUTIONAL = 4


@contextmanager
def differentiable() -> Iterator[None]:
    """Record gradients even under `no_grad` and `inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def attacking(model: nn.Module, parameters: Iterable[nn.Parameter], device: torch.device) -> Iterator[None]:
    """Eval mode, gradients toward images alone, and no cached casts of frozen weights that training would reuse."""
    kind = device.type
    dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
    uncached = torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=False)
    with differentiable(), evaluating(model), frozen(parameters), uncached:
        yield


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Give every submodule its own train or eval flag back afterwards."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model in eval mode, and each submodule back in its own mode afterwards."""
    with modes_kept(model):
        model.eval()
        yield


@contextmanager
def frozen(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Let no gradient be computed toward these parameters meanwhile."""
    open_ones = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in open_ones:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in open_ones:
            parameter.requires_grad_(True)


@contextmanager
def statistics_untouched(model: nn.Module) -> Iterator[None]:
    """Let norm layers in train mode normalise by the batch without recording it."""
    recording = [m for m in model.modules() if isinstance(m, _NormBase) and m.training and m.track_running_stats]
    kept = [(module, module.running_mean, module.running_var) for module in recording]
    for module in recording:
        module.track_running_stats = False
        if isinstance(module, _InstanceNorm):  # which records whatever that flag says
            module.running_mean = module.running_var = None
    try:
        yield
    finally:
        for module, mean, var in kept:
            module.track_running_stats, module.running_mean, module.running_var = True, mean, var


@contextmanager
def gradients_kept(model: nn.Module) -> Iterator[None]:
    """Set every `.grad` aside, and put the same tensors back afterwards."""
    kept = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in kept:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in kept:
            parameter.grad = gradient


@contextmanager
def restored_on_failure(model: nn.Module) -> Iterator[None]:
    """Put the weights and buffers that the model came with back if anything is raised, Ctrl-C too."""
    put_back = _keeper(model)
    try:
        yield
    except BaseException:
        put_back()
        raise


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Put the weights and buffers that the model came with back afterwards, whatever happens."""
    put_back = _keeper(model)
    try:
        yield
    finally:
        put_back()


def _keeper(model: nn.Module) -> Callable[[], None]:
    """What gives the model the weights and buffers back that it has now."""
    kept = [(tensor, tensor.detach().clone()) for tensor in _tensors(model)]
    # A forward may replace a buffer by another tensor instead of writing into it.
    buffers = [(module, dict(module._buffers)) for module in model.modules()]

    @torch.no_grad()
    def put_back() -> None:
        for tensor, before in kept:
            tensor.copy_(before)
        for module, own in buffers:
            module._buffers.update(own)

    return put_back


@contextmanager
def borrowed(model: nn.Module, device: torch.device, seed: int) -> Iterator[None]:
    """Train a model on a device and give it back: old weights on any failure, all but its weights in any case."""
    with (
        own_randomness(seed),
        placed(model, device),
        restored_on_failure(model),
        modes_kept(model),
        gradients_kept(model),
    ):
        yield


@contextmanager
def trainable(model: nn.Module) -> Iterator[None]:
    """Put a model whose root is in eval mode in train mode as a whole; with the root in train mode, leave it.

    Submodules in eval mode below a root in train mode are deliberate, as frozen batch norms are.
    """
    with modes_kept(model):
        if not model.training:
            model.train()
        yield


@contextmanager
def formatted(model: nn.Module, channels_last: bool) -> Iterator[None]:
    """Keep convolutions' weights in channels_last format meanwhile, and bring them back to where they were in memory."""
    found = [(tensor, tensor.data) for tensor in _tensors(model)] if channels_last else []
    kept = [(tensor, own) for tensor, own in found if own.dim() == 4 and type(own) is Tensor]
    try:
        for tensor, own in kept:
            tensor.data = own.contiguous(memory_format=torch.channels_last)
        yield
    finally:
        for tensor, own in kept:
            if tensor.data_ptr() != own.data_ptr():
                tensor.data = own.copy_(tensor.data)


def chosen_format(channels_last: bool | str, model: nn.Module, inputs: Tensor) -> bool:
    """Whether to work in channels_last: as the user says, else for convolutional models that can take inputs (N,C,H,W).

    A model whose forward calls `view` on what a convolution returns cannot, and one compiled already would be again.

    Raises:
        ValueError: neither True, False nor "auto".
    """
    if isinstance(channels_last, bool):
        return channels_last
    if channels_last != "auto":
        raise ValueError(f"channels_last is {channels_last!r}, but it must be True, False or 'auto'")
    if sum(isinstance(module, nn.Conv2d) for module in model.modules()) < CONVOLUTIONAL or compiled(model):
        return False
    try:
        with formatted(model, True), evaluating(model), torch.no_grad():
            model(inputs)
    except Exception:  # what is wrong in any format is told by the first look at the model
        return False
    return True


def compiled(model: nn.Module) -> bool:
    """Whether torch.compile has been called on the model, by function or in place."""
    return hasattr(model, "_orig_mod") or getattr(model, "_compiled_call_impl", None) is not None


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


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Seed the random states of torch, numpy and Python, and put them back as they were afterwards."""
    python, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter or buffer; the CPU if it has none."""
    return next((tensor.device for tensor in _tensors(model)), torch.device("cpu"))


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


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a batch norm in train mode would normalise by the batch."""
    return any(isinstance(module, _BatchNorm) and module.training for module in model.modules())


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def check_module(model: Any) -> None:
    """Raise a ValueError for what is not a module that has weights."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"the model is a {type(model).__name__}, but a torch.nn.Module is needed")
    if device_of(model).type == "meta":
        raise ValueError("the model is on the meta device, so it has no weights: load them first, as with to_empty")
    if any(tensor.is_inference() for tensor in _tensors(model)):
        raise ValueError(
            "the model's weights were made in inference mode, which forbids gradients for good: make or load the model "
            "outside torch.inference_mode()"
        )


def check_model(model: Any) -> None:
    """Raise a ValueError for what is not a plain, trainable, unwrapped module."""
    check_module(model)
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        raise ValueError(
            f"the model is wrapped in {type(model).__name__}: pass model.module, and wrap RobustLoss instead"
        )
    if hasattr(model, "_orig_mod"):
        raise ValueError("the model is compiled by torch.compile: pass model._orig_mod, the module it was made from")
    if getattr(model, "_compiled_call_impl", None) is not None:
        raise ValueError(
            "the model was compiled in place by model.compile(), which hides its layers: pass a fresh module"
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError(
            "the model is TorchScript, whose layers cannot be read: pass the Python module it was made from"
        )
    packed = next(_packed(model), None)
    if packed is not None:
        raise ValueError(f"{packed}, and quantised weights cannot be trained: harden the float model, then quantise it")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            "no parameter of the model requires grad, so there is nothing to train: call model.requires_grad_()"
        )


def _packed(model: nn.Module) -> Iterator[str]:
    """What holds weights in a byte each or less."""
    for name, module in model.named_modules():
        # Static and dynamic quantisation hide packed weights from `parameters()`.
        if ".quantized." in f"{type(module).__module__}.":
            yield f"the layer {name!r} is a quantised {type(module).__name__}"
    for name, parameter in model.named_parameters():
        if parameter.dtype.itemsize == 1 and parameter.dtype != torch.bool:
            yield f"the weight {name!r} is {parameter.dtype}"
