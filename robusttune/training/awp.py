"""Adversarial weight perturbation."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from robusttune.run import distributed

TINY = 1e-12


def perturbed_weights(model: nn.Module, loss_of: Callable[[], Tensor], gamma: float) -> dict[str, Tensor]:
    """Move a model's weights so that the loss rises; returns the moved weights, for `torch.func.functional_call`.

    Each weight of more than one dimension moves by gamma times its norm, along its gradient; biases and norm layers
    do not move. Gradients at the moved weights reach the model's parameters, so nothing has to be moved back. With
    several processes, all move along the mean of their gradients.

    Source: Wu et al., arXiv:2004.05884, equations 8 to 10, with one step.
    """
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad and weight.dim() > 1]
    gradients = torch.autograd.grad(loss_of(), [weight for _, weight in named], allow_unused=True)
    moved = {}
    for (name, weight), gradient in zip(named, gradients, strict=True):
        if gradient is not None:
            direction = _mean_of_processes(gradient)
            length = gamma * torch.linalg.vector_norm(weight.detach())
            moved[name] = weight + direction * (length / torch.linalg.vector_norm(direction).clamp(min=TINY))
    return moved


def _mean_of_processes(gradient: Tensor) -> Tensor:
    distributed.average([gradient])
    return gradient
