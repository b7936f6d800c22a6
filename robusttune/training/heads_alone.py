"""Heads of tasks of weight 0, which learn beside the backbone without changing it, in a training loop of the user's own."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robusttune.model.borrowing import evaluating
from robusttune.model.devices import dtype_of
from robusttune.model.features import forward
from robusttune.tasks._heads import Part, views_of

if TYPE_CHECKING:
    from robusttune.training.robust_loss import RobustLoss


def losses_alone(
    robust_loss: "RobustLoss", adversarial: Tensor, generator: torch.Generator
) -> list[tuple[Part, Tensor]]:
    """Return the losses (M,) of each task of weight 0 on its views, whose gradients reach the heads alone.

    The model is in eval mode for the views, as when heads are used later. So these tasks change neither its running statistics
    nor the random numbers of its dropout.

    Args:
        robust_loss: the RobustLoss that the heads belong to.
        adversarial: images (N,C,H,W) on [0,1], of which some get a view.
        generator: on the CPU.
    """
    heads, device = robust_loss.heads, adversarial.device.type
    parts = heads.draw_alone(adversarial, generator)
    if not parts:
        return []
    dtype, enabled = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
    # Cast weights that stay in the cache from here would have no gradient in the update.
    uncached = torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=False)
    with uncached:
        features = features_of(robust_loss, views_of(adversarial, parts))
    # In fp16, an overflow in a head's gradient would skip the optimiser step of the whole model.
    with torch.autocast(device, enabled=False):
        losses = heads.losses(parts, features.to(dtype_of(heads)))
    return list(zip(parts, losses, strict=True))


def features_of(robust_loss: "RobustLoss", pixels: Tensor) -> Tensor:
    """Return the features (N,D) of pixels (N,C,H,W) on [0,1], with the model in eval mode and without gradients."""
    model = robust_loss.model
    with torch.no_grad(), evaluating(model):
        inputs = robust_loss.pixels.inputs(pixels).to(dtype_of(model))
        return forward(model, robust_loss.classifier, inputs)[1]
