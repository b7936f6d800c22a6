"""Context managers that borrow a user's model and give it back as it was."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from robusttune.model.devices import placed, tensors_of
from robusttune.run.randomness import own_randomness


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
    kept = [(tensor, tensor.detach().clone()) for tensor in tensors_of(model)]
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
