"""Gradients toward images in fp16, scaled for each image so that none is rounded to zero."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Run = Callable[[Tensor], tuple[Tensor, Tensor]]
LARGEST = 2.0**100  # of the scales, which are of fp32


def in_fp16(device: torch.device) -> bool:
    """Return True inside an autocast to fp16 on this device."""
    kind = device.type
    return torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16


def scaled(run: Run, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the outputs of `run` in fp32, through which the gradient of an image is scaled up on its way to the input, then down again.

    The gradient of the loss at the logits of an image that the model is sure of is so small that fp16 rounds it to zero. It is
    scaled to about 1 here, by a power of two, so that only the rounding is different. An image's outputs must not depend on the
    other images, as in eval mode.

    Args:
        run: inputs (N,C,H,W) -> logits (N,K) and features (N,D).
        inputs: (N,C,H,W).
    """
    if not (inputs.requires_grad and torch.is_grad_enabled()):
        return run(inputs)
    scales = _Scales()
    logits, features = run(_Down.apply(inputs, scales))
    outputs: tuple[Tensor, Tensor] = _Up.apply(logits.float(), features.float(), scales)
    return outputs


class _Scales:
    """The scales (N,) of the images of a batch, known once the backward pass has begun."""

    of_images: Tensor

    def rows(self, gradient: Tensor) -> Tensor:
        """Return the scales in a shape that multiplies the rows of a gradient (N,…)."""
        return self.of_images.view(-1, *[1] * (gradient.dim() - 1))


class _Context(Protocol):
    """The part of torch's context of a function that is used here."""

    scales: _Scales


class _Up(torch.autograd.Function):
    """Outputs as they are; their gradients are multiplied by the scales, which are chosen here."""

    @staticmethod
    def forward(ctx: _Context, logits: Tensor, features: Tensor, scales: _Scales) -> tuple[Tensor, Tensor]:
        ctx.scales = scales
        return logits.clone(), features.clone()

    @staticmethod
    def backward(ctx: _Context, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        largest = torch.stack([gradient.detach().flatten(1).abs().amax(1) for gradient in gradients]).amax(0)
        # An image without a gradient, or with one that is not finite, keeps it.
        usable = largest.isfinite() & (largest > 0)
        exponents = -torch.where(usable, largest, 1.0).log2().ceil()
        ctx.scales.of_images = exponents.exp2().clamp(1.0, LARGEST)
        logits, features = (gradient * ctx.scales.rows(gradient) for gradient in gradients)
        return logits, features, None


class _Down(torch.autograd.Function):
    """Inputs as they are; their gradient is divided by the scales."""

    @staticmethod
    def forward(ctx: _Context, inputs: Tensor, scales: _Scales) -> Tensor:
        ctx.scales = scales
        return inputs.clone()  # which a model may write into

    @staticmethod
    def backward(ctx: _Context, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient / ctx.scales.rows(gradient), None
