"""Memory format of a model's convolutions: channels_last where the model supports it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robusttune.model.borrowing import evaluating
from robusttune.model.devices import tensors_of
from robusttune.model.undoing import undone
from robusttune.types import AutoBool

CONVOLUTIONAL = 4


@contextmanager
def formatted(model: nn.Module, channels_last: bool) -> Iterator[None]:
    """Keep convolutions' weights in channels_last format inside the context, and restore their place in memory."""
    weights = [(tensor, tensor.data) for tensor in tensors_of(model)] if channels_last else []
    moved = [(tensor, before) for tensor, before in weights if _is_image_like(before)]

    def restore() -> None:
        for tensor, before in moved:
            if tensor.data_ptr() != before.data_ptr():
                tensor.data = before.copy_(tensor.data)

    with undone(restore):
        for tensor, before in moved:
            tensor.data = before.contiguous(memory_format=torch.channels_last)
        yield


def _is_image_like(tensor: Tensor) -> bool:
    return tensor.dim() == 4 and type(tensor) is Tensor and tensor.layout == torch.strided


def chosen_format(channels_last: AutoBool, model: nn.Module, inputs: Tensor, *, may_fold: bool = False) -> bool:
    """Return True to work in channels_last: as the user says, or with "auto" for convolutional models that support it.

    A model whose forward calls `view` on the output of a convolution does not support it. A compiled model would be
    compiled again, so it keeps its format. On a CUDA GPU, batch norms of fp32 numbers in eval mode are so slow in
    channels_last (an attack on resnet50 at 224 px on an H100 takes 1.2 times as long) that the model keeps its format too,
    unless they may be folded (0.8 times as long).

    Args:
        channels_last: True, False or "auto".
        model: the model, in any mode.
        inputs: (N,C,H,W), to try a forward with.
        may_fold: the model's batch norms may be folded for attacks, or the model runs in 16 bits.

    Raises:
        ValueError: channels_last is neither True, False nor "auto".
    """
    if isinstance(channels_last, bool):
        return channels_last
    if channels_last != "auto":
        raise ValueError(f"channels_last is {channels_last!r}, but it must be True, False or 'auto'")
    slow = inputs.device.type == "cuda" and inputs.dtype.itemsize > 2 and not may_fold
    if slow and any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        return False
    if sum(isinstance(module, nn.Conv2d) for module in model.modules()) < CONVOLUTIONAL or compiled(model):
        return False
    try:
        with formatted(model, True), evaluating(model), torch.no_grad():
            model(inputs.clone())  # which some models write into
    except Exception:  # an error that has nothing to do with the format is reported by `probe`
        return False
    return True


def compiled(model: nn.Module) -> bool:
    """Return True if torch.compile has been called on the model, as a function or in place."""
    return hasattr(model, "_orig_mod") or getattr(model, "_compiled_call_impl", None) is not None
