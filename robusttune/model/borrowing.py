"""Context managers that change a user's model and restore it afterwards."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from robusttune.model.devices import placed, tensors_of
from robusttune.model.snapshot import overwrite, same, snapshot
from robusttune.model.undoing import undone
from robusttune.run.randomness import own_randomness


@contextmanager
def differentiable() -> Iterator[None]:
    """Record gradients even under `no_grad` and `inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def attacking(model: nn.Module, parameters: Iterable[nn.Parameter], device: torch.device) -> Iterator[None]:
    """Put the model in eval mode, compute gradients toward images alone, and cache no casts of frozen weights.

    Autocast would reuse those casts in training, where they have no gradient.
    """
    kind = device.type
    dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
    uncached = torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=False)
    with differentiable(), evaluating(model), frozen(parameters), uncached:
        yield


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Restore every submodule's train or eval mode afterwards, by its own `train` or `eval` where it has one."""
    flags = [(module, module.training) for module in model.modules()]

    def restore() -> None:
        for module, flag in flags:
            if module.training != flag and switches_itself(module):
                module.train() if flag else module.eval()
            module.training = flag

    with undone(restore):
        yield


def switches_itself(module: nn.Module) -> bool:
    """Return True if the module has a `train` or `eval` of its own, as adapters that merge their weights have."""
    kind, mine = type(module), vars(module)
    return any(name in mine or getattr(kind, name) is not getattr(nn.Module, name) for name in ("train", "eval"))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model in eval mode, and restore each submodule's mode afterwards.

    Weights that a module's own `train` or `eval` changes come back to the bit, which adding and subtracting would not do.
    """
    training = any(module.training for module in model.modules())
    switching = [module for module in model.modules() if training and switches_itself(module)]
    tensors = {id(each): each for module in switching for each in tensors_of(module)}
    kept = [(tensor, tensor.detach().clone()) for tensor in tensors.values()]

    def restore() -> None:
        for tensor, before in kept:
            overwrite(tensor, before)

    with undone(restore), modes_kept(model):
        model.eval()
        kept = [(tensor, before) for tensor, before in kept if not same(tensor, before)]
        yield


@contextmanager
def frozen(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Compute no gradients of these parameters inside the context."""
    trainable_ones = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trainable_ones:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable_ones:
            parameter.requires_grad_(True)


@contextmanager
def statistics_untouched(model: nn.Module) -> Iterator[None]:
    """Let norm layers in train mode normalise by the batch without updating running statistics."""
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
    """Clear every `.grad`, and restore the same tensors afterwards."""
    kept = [(parameter, parameter.grad) for parameter in model.parameters()]

    def restore() -> None:
        for parameter, gradient in kept:
            parameter.grad = gradient

    with undone(restore):
        for parameter, _ in kept:
            parameter.grad = None
        yield


@contextmanager
def restored_on_failure(model: nn.Module) -> Iterator[None]:
    """Restore the model's state if anything is raised, also on Ctrl-C; see `snapshot`."""
    failed, restore = True, snapshot(model)
    with undone(lambda: restore() if failed else None):
        yield
        failed = False


@contextmanager
def restored(model: nn.Module, *, weights: bool = True) -> Iterator[None]:
    """Restore the model's state afterwards, in any case; see `snapshot`."""
    with undone(snapshot(model, weights=weights)):
        yield


@contextmanager
def borrowed(model: nn.Module, device: torch.device, seed: int) -> Iterator[None]:
    """Move the model to a device and into train mode, and restore everything but its weights afterwards.

    If anything is raised, the weights and buffers are restored too.
    """
    with (
        own_randomness(seed),
        placed(model, device),
        restored_on_failure(model),
        trainable(model),
        gradients_kept(model),
    ):
        yield


@contextmanager
def trainable(model: nn.Module) -> Iterator[None]:
    """Put the whole model in train mode if its root is in eval mode, and restore each submodule's mode afterwards.

    If the root is in train mode, submodules in eval mode are deliberate, such as frozen batch norms, and stay so.
    """
    with modes_kept(model):
        if not model.training:
            model.train()
        yield
