"""Activation checkpointing: blocks of a model forget what they computed, and compute it again in the backward pass."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

STATE = ("training", "track_running_stats", "running_mean", "running_var")
RECORDING = ("momentum", "num_batches_tracked")


@contextmanager
def checkpointed(model: nn.Module) -> Iterator[int]:
    """Checkpoint the model's blocks meanwhile; how many there are.

    The loss and all gradients stay the same, at the price of another forward pass in each backward pass. Running
    statistics are recorded once, and random layers draw the same again.
    """
    found = blocks(model)
    for block in found:
        block.forward = partial(_forgetful, block, block.forward)
    try:
        yield len(found)
    finally:
        for block in found:
            vars(block).pop("forward", None)


def blocks(model: nn.Module) -> list[nn.Module]:
    """The items of the model's outermost lists and sequences that hold several layers with weights."""
    found: list[nn.Module] = []
    for module in model.children():
        if isinstance(module, nn.Sequential | nn.ModuleList):
            for item in module:
                if isinstance(item, nn.Sequential | nn.ModuleList) and _layers(item) > 2:
                    found += blocks(item) or ([item] if isinstance(item, nn.Sequential) else [])
                elif _layers(item) > 1:
                    found.append(item)
        else:
            found += blocks(module)
    return [block for block in found if "forward" not in vars(block)]


def _layers(module: nn.Module) -> int:
    return sum(bool(each._parameters) for each in module.modules())


def _forgetful(block: nn.Module, own: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    if not torch.is_grad_enabled():
        return own(*arguments, **keywords)
    return checkpoint(own, *arguments, use_reentrant=False, context_fn=partial(_contexts, block), **keywords)


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Those of the forward pass, and of the one that is repeated for the backward pass."""
    norms: list[Any] = [module for module in block.modules() if isinstance(module, _NormBase)]
    states = [{key: getattr(norm, key) for key in STATE} for norm in norms]
    return nullcontext(), _as_then(norms, states)


@contextmanager
def _as_then(norms: list[Any], states: list[dict[str, Any]]) -> Iterator[None]:
    """Let norms do all that they did in the states they were in, but for recording statistics."""
    now = [{key: getattr(norm, key) for key in (*STATE, *RECORDING)} for norm in norms]
    for norm, state in zip(norms, states, strict=True):
        for key, value in state.items():
            setattr(norm, key, value)
        norm.momentum = 0.0
        norm.num_batches_tracked = None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, state in zip(norms, now, strict=True):
            for key, value in state.items():
                setattr(norm, key, value)
