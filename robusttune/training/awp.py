"""Adversarial weight perturbation."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from robusttune.run import distributed

TINY = 1e-12


def perturbed_weights(model: nn.Module, loss_of: Callable[[], Tensor], gamma: float) -> dict[str, Tensor]:
    """Move a model's weights so that the loss rises; returns the moved weights, for `torch.func.functional_call`.

    Each weight of more than one dimension moves by gamma times its norm, along its gradient; biases and norm layers
    do not move. Gradients at the moved weights reach the model's parameters, so nothing has to be moved back. With
    several processes, all move along the mean of their gradients.

    Raises:
        ValueError: the model computes activations again in the backward pass, where its weights are not the moved ones.

    Source: Wu et al., arXiv:2004.05884, equations 8 to 10, with one step.
    """
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad and weight.dim() > 1]
    gradients = _gradients(model, loss_of(), [weight for _, weight in named])
    moved = {}
    for (name, weight), gradient in zip(named, gradients, strict=True):
        if gradient is not None:
            direction = _mean_of_processes(gradient)
            length = gamma * torch.linalg.vector_norm(weight.detach())
            moved[name] = weight + direction * (length / torch.linalg.vector_norm(direction).clamp(min=TINY))
    return moved


def _gradients(model: nn.Module, loss: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """Return the gradients of a loss; a ValueError if the model's layers run again while they are computed."""
    layers, again = set(model.modules()), list[str]()

    def note(module: nn.Module, arguments: object) -> None:
        if module in layers:
            again.append(type(module).__name__)

    watch = register_module_forward_pre_hook(note)
    try:
        gradients: tuple[Tensor | None, ...] = torch.autograd.grad(loss, weights, allow_unused=True)
    finally:
        watch.remove()
    if again:
        raise ValueError(
            f"the model computes activations again in the backward pass ({again[0]} runs there), which awp= does not allow, as its "
            "weights are not the perturbed ones then: switch its gradient checkpointing off, or leave awp= out"
        )
    return gradients


def _mean_of_processes(gradient: Tensor) -> Tensor:
    distributed.average([gradient])
    return gradient
