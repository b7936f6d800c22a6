"""Shapes of the images that a model takes, read from its layers and attributes."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

LARGE_SIDE = 160
SIDES = (224, 32, 28, 64, 96, 128, 256, 299, 384, 16, 8)


def is_large(images: Tensor) -> bool:
    """Return True if images (N,C,H,W) are treated as the field treats ImageNet's, not as CIFAR's: from 160 px on."""
    return min(images.shape[-2:]) >= LARGE_SIDE


def sample_inputs(model: nn.Module) -> Iterator[Tensor]:
    """Generate random inputs (2,C,H,W) of the sizes that the model may take, the likeliest size first."""
    parameter = next(model.parameters(), torch.empty(0))
    config = getattr(model, "pretrained_cfg", None) or {}
    size = (config.get("input_size") if isinstance(config, dict) else None) or ()
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    # Pixels may be rearranged into channels before the first convolution, so the model's own config comes first.
    channels = dict.fromkeys([*size[:1], *([first.in_channels] if first is not None else []), 3, 1])
    sides = [*_own_size(model), *(tuple(size[-2:]),) * bool(size), *((side, side) for side in SIDES)]
    for side in dict.fromkeys(sides):
        for channel in channels:
            inputs = torch.rand(2, channel, *side, generator=torch.Generator().manual_seed(0))
            yield inputs.to(parameter.device, parameter.dtype)


def patch_size_of(model: nn.Module) -> int | None:
    """Return the side in pixels of the patches into which the first layer cuts the image; None if it cuts none.

    Vision transformers, mixers and ConvNeXt cut images. Layers deeper in a model cut feature maps, not the image.
    """
    if isinstance(model, torch.jit.ScriptModule):
        return None
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    path = layers[0].split(".") if layers else []
    holders = [model.get_submodule(".".join(path[:depth])) for depth in range(len(path) + 1)]
    for holder in holders:
        side = _side(getattr(holder, "patch_size", None))
        strides = [_side(module.stride) for module in holder.modules() if isinstance(module, nn.Conv2d)]
        # Windows that overlap (a side of 7 at a stride of 4) are no patches, nor are windows of already strided features.
        if side > 1 and side % max(1, math.prod(strides)) == 0:
            return side
    first = holders[-1]
    cuts = isinstance(first, nn.Conv2d) and first.kernel_size == first.stride
    return _side(first.stride) if cuts and _side(first.stride) > 1 else None


def _side(size: object) -> int:
    """Return the side of a square; 0 for anything else."""
    if isinstance(size, int):
        return size
    return _side(size[0]) if isinstance(size, tuple | list) and len(set(size)) == 1 else 0


def _own_size(model: nn.Module) -> list[tuple[int, int]]:
    """Return the image size (height, width) in the model's attributes, as a list of one; an empty list if there is none."""
    holders = [*model.modules(), getattr(model, "config", None)]
    for size in (getattr(holder, name, None) for holder in holders for name in ("img_size", "image_size")):
        if isinstance(size, tuple | list) and len(size) >= 2:
            return [(size[-2], size[-1])]
        if isinstance(size, int):
            return [(size, size)]
    return []
