"""Activation checkpointing of a model's blocks: less memory for one more forward pass in each backward pass."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from robusttune.model.snapshot import OF_MODULES

LISTS = (nn.Sequential, nn.ModuleList)
STATE = ("training", "track_running_stats", "running_mean", "running_var")
RECORDING = ("momentum", "num_batches_tracked")


@contextmanager
def checkpointed(model: nn.Module) -> Iterator[int]:
    """Checkpoint the model's blocks inside the context, and yield the number of blocks.

    The loss and all gradients stay the same. Running statistics are recorded once, as are other buffers and attributes that
    a forward changes, and random layers draw the same numbers in both forward passes.
    """
    chosen = blocks(model)
    for block in chosen:
        block.forward = partial(_recomputed, block, block.forward)
    try:
        yield len(chosen)
    finally:
        for block in chosen:
            vars(block).pop("forward", None)


def blocks(model: nn.Module) -> list[nn.Module]:
    """List the blocks: items of the model's outermost lists and sequences, with several layers that have weights each."""
    nested = [block for module in model.children() for block in _blocks_of_child(module)]
    return [block for block in nested if "forward" not in vars(block)]


def _blocks_of_child(module: nn.Module) -> list[nn.Module]:
    if not isinstance(module, LISTS):
        return blocks(module)
    return [block for item in module for block in _blocks_of_item(item)]


def _blocks_of_item(item: nn.Module) -> list[nn.Module]:
    """List the blocks in an item of a list or sequence, which may be a block itself."""
    if isinstance(item, LISTS) and _layers(item) > 2:
        return blocks(item) or ([item] if isinstance(item, nn.Sequential) else [])
    return [item] if _layers(item) > 1 else []


def _layers(module: nn.Module) -> int:
    return sum(bool(layer._parameters) for layer in module.modules())


# Any: a block takes and returns whatever the user's model passes from block to block.
def _recomputed(block: nn.Module, forward: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """Run a block's forward, whose activations are recomputed in the backward pass."""
    if not torch.is_grad_enabled():
        return forward(*arguments, **keywords)
    return checkpoint(forward, *arguments, use_reentrant=False, context_fn=partial(_contexts, block), **keywords)


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the contexts of the forward pass and of its repetition in the backward pass."""
    norms = [module for module in block.modules() if isinstance(module, _NormBase)]
    states = [{key: getattr(norm, key) for key in STATE} for norm in norms]
    others = [module for module in block.modules() if not isinstance(module, _NormBase | torch.jit.ScriptModule)]
    return nullcontext(), _in_both(_in_states(norms, states), _as_before(others))


@contextmanager
def _in_both(one: AbstractContextManager[None], other: AbstractContextManager[None]) -> Iterator[None]:
    with one, other:
        yield


def _as_before(modules: list[nn.Module]) -> AbstractContextManager[None]:
    """Return a context in which modules have their present buffers and attributes, such as the vectors of a spectral norm."""
    buffers = [{name: _copy(buffer) for name, buffer in module._buffers.items()} for module in modules]
    return _replaced(modules, buffers, [_attributes(module) for module in modules])


@contextmanager
def _replaced(
    modules: list[nn.Module], buffers: list[dict[str, Tensor | None]], attributes: list[dict[str, object]]
) -> Iterator[None]:
    """Replace buffers and attributes inside this context; writing into the buffers would spoil autograd's saved tensors."""
    after = [(dict(module._buffers), _attributes(module)) for module in modules]
    for module, own, plain in zip(modules, buffers, attributes, strict=True):
        module._buffers.update(own)
        vars(module).update(plain)
    try:
        yield
    finally:
        for module, (own, plain) in zip(modules, after, strict=True):
            module._buffers.update(own)
            vars(module).update(plain)


def _copy(buffer: Tensor | None) -> Tensor | None:
    return None if buffer is None else buffer.detach().clone()


def _attributes(module: nn.Module) -> dict[str, object]:
    """Return a module's plain attributes, without torch's and without the forward that is replaced here."""
    return {name: value for name, value in vars(module).items() if name not in OF_MODULES and name != "forward"}


@contextmanager
def _in_states(norms: list[_NormBase], states: list[dict[str, object]]) -> Iterator[None]:
    """Re-create the state that norm layers had in the first forward, without updating running statistics."""
    before: list[dict[str, object]] = [{key: getattr(norm, key) for key in (*STATE, *RECORDING)} for norm in norms]
    _set(norms, states)
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        _set(norms, before)


def _set(norms: list[_NormBase], states: list[dict[str, object]]) -> None:
    for norm, state in zip(norms, states, strict=True):
        for key, value in state.items():
            setattr(norm, key, value)
