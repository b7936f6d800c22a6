"""Snapshots of a model's state: its weights and buffers of any kind, and the plain attributes of its modules."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

OF_MODULES = frozenset(vars(nn.Module()))  # torch's own attributes, such as the modes and the hooks


def snapshot(model: nn.Module, *, weights: bool = True) -> Callable[[], None]:
    """Take a snapshot of the model, and return the function that restores it, in the same tensor objects.

    A forward may write into buffers, resize them, put others in their place, or set attributes; all of that is restored.
    Tensors that have not changed are not written to, so a graph of the user's own stays valid.

    Args:
        weights: keep copies of the parameters, too; False if nothing trains them.
    """
    tensors = {id(tensor): tensor for tensor in _tensors(model, weights)}
    kept = [(tensor, tensor.detach().clone()) for tensor in tensors.values()]
    restores = [_restore_of(module) for module in model.modules()]

    def restore() -> None:
        for tensor, before in kept:
            if not same(tensor, before):
                overwrite(tensor, before)
        for each in restores:
            each()

    return restore


def _tensors(model: nn.Module, weights: bool) -> Iterator[Tensor]:
    parameters = [each for each in model.parameters() if not is_lazy(each)] if weights else []
    yield from parameters
    yield from (each for each in model.buffers() if not is_lazy(each))
    for module in model.modules():
        if not isinstance(module, torch.jit.ScriptModule):
            attributes = (value for name, value in vars(module).items() if name not in OF_MODULES)
            yield from (each for each in attributes if isinstance(each, Tensor) and not each.is_inference())


def _restore_of(module: nn.Module) -> Callable[[], None]:
    """Return the function that restores which parameters, buffers and attributes a module has, not their values."""
    buffers = dict(module._buffers.items())
    if isinstance(module, torch.jit.ScriptModule):

        def restore_scripted() -> None:
            for name, buffer in buffers.items():
                if getattr(module, name) is not buffer:
                    setattr(module, name, buffer)

        return restore_scripted
    parameters, attributes = dict(module._parameters), dict(vars(module))

    def restore() -> None:
        for registered, before in ((module._parameters, parameters), (module._buffers, buffers)):
            _reset(registered, before)  # type: ignore[arg-type]
        _reset(vars(module), attributes, leave=OF_MODULES)

    return restore


def _reset(present: dict[str, object], before: dict[str, object], leave: frozenset[str] = frozenset()) -> None:
    """Make one dictionary hold the objects of another, but for some keys."""
    for name in [name for name in present if name not in before and name not in leave]:
        del present[name]
    present.update({name: value for name, value in before.items() if name not in leave})


def plain_values(module: nn.Module) -> dict[str, Tensor | float]:
    """Return a module's own attributes that training may change beside its weights: numbers and tensors, such as a temperature."""
    return {
        name: value
        for name, value in vars(module).items()
        if name not in OF_MODULES and isinstance(value, Tensor | int | float)
    }


def own_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules of a model by name, without those of torch, whose attributes do not change."""
    return {name: one for name, one in model.named_modules() if not type(one).__module__.startswith("torch.")}


def same(one: Tensor, other: Tensor) -> bool:
    """Return True if two tensors of one kind hold the same values; False if they cannot be compared."""
    kinds = [(each.shape, each.layout, each.dtype, each.device) for each in (one, other)]
    if kinds[0] != kinds[1] or one.layout != torch.strided:
        return False
    if one.dtype.itemsize == 1:
        return torch.equal(one.detach().contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))
    return torch.equal(one, other)


def is_dense_float(tensor: Tensor) -> bool:
    """Return True for a dense tensor of real or complex floating-point numbers of two bytes or more."""
    numbers = tensor.is_floating_point() or tensor.is_complex()
    return numbers and tensor.layout == torch.strided and tensor.dtype.itemsize > 1


@torch.no_grad()
def overwrite(tensor: Tensor, value: Tensor) -> None:
    """Write a value into a tensor of any kind, such as a sparse one or one that a forward has resized."""
    if tensor.shape == value.shape and tensor.layout == value.layout == torch.strided:
        tensor.copy_(value)
    else:
        tensor.data = value.detach().clone()
