"""The memory format of a model's convolutions: channels_last where the model can work in it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robusttune.model.borrowing import evaluating
from robusttune.model.devices import tensors_of

CONVOLUTIONAL = 4


@contextmanager
def formatted(model: nn.Module, channels_last: bool) -> Iterator[None]:
    """Keep convolutions' weights in channels_last format meanwhile, and bring them back to where they were in memory."""
    found = [(tensor, tensor.data) for tensor in tensors_of(model)] if channels_last else []
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
