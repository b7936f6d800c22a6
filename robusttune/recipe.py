"""Customary settings by the kind of backbone, the image size and the norm."""

from dataclasses import dataclass
from typing import Any

import torch
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
from torch import Tensor, nn

from robusttune.features import patch_size_of
from robusttune.threat import ThreatModel

LARGE_SIDE = 160


@dataclass(frozen=True)
class Recipe:
    """How weights are updated."""

    name: str
    lr: float
    weight_decay: float
    clip_grad: float | None

    def optimizer(self, robust_loss: nn.Module, wanted: Any) -> torch.optim.Optimizer:
        """The optimiser of a name that timm knows, or what a callable makes of the parameters."""
        if callable(wanted):
            made: torch.optim.Optimizer = wanted([p for p in robust_loss.parameters() if p.requires_grad])
            return made
        made = create_optimizer_v2(robust_loss, opt=wanted or self.name, lr=self.lr, weight_decay=self.weight_decay)
        return made

    def __str__(self) -> str:
        clip = "" if self.clip_grad is None else f", gradients clipped at {self.clip_grad:g}"
        return f"{self.name} lr {self.lr:g}, weight decay {self.weight_decay:g}{clip}"


def default_recipe(
    model: nn.Module, images: Tensor, *, lr: float | None, weight_decay: float | None, clip_grad: float | None
) -> Recipe:
    """The customary optimiser for the kind of backbone and the image size, where the user named none."""
    if patch_size_of(model) is not None:
        chosen = Recipe("adamw", 5e-4, 0.05, 1.0)
    else:
        chosen = Recipe("sgd", 0.05, 5e-4 if min(images.shape[-2:]) < LARGE_SIDE else 1e-4, None)
    return Recipe(
        chosen.name,
        chosen.lr if lr is None else lr,
        chosen.weight_decay if weight_decay is None else weight_decay,
        chosen.clip_grad if clip_grad is None else clip_grad,
    )


def default_steps(images: Tensor, threat: ThreatModel) -> int:
    """How many steps PGD takes: 10 for small images; above 160 px 7 in l2 and 3 in linf, where radii are small."""
    if min(images.shape[-2:]) < LARGE_SIDE:
        return 10
    return 7 if threat.norm == "l2" else 3
