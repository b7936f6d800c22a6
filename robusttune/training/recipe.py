"""Customary settings by the kind of backbone, the image size and the norm."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.optim import create_optimizer_v2, list_optimizers  # type: ignore[attr-defined]
from timm.scheduler.scheduler_factory import create_scheduler_v2
from torch import Tensor, nn

from robusttune.model.input_shapes import is_large, patch_size_of
from robusttune.training.schedule import Plan

FUSED = ("sgd", "momentum", "adam", "adamw")  # timm's names of torch's own
FUSED_ON = {"cuda"}


@dataclass(frozen=True)
class Recipe:
    """How weights are updated.

    Attributes:
        optimizer: a name that timm knows, a torch optimiser, or (parameters) -> one.
        lr, weight_decay: of a named optimiser.
        clip_grad: largest norm of the gradient; None for no limit.
        ema: decay of the moving average of weights, per step; 0 for none.
        scheduler: None for a short rise and half a cosine; a name that timm knows, a torch scheduler, or (optimizer) ->
            one, which is stepped after each epoch.
    """

    optimizer: Any
    lr: float
    weight_decay: float
    clip_grad: float | None
    ema: float
    scheduler: Any = None

    def made(self, robust_loss: nn.Module, plan: Plan) -> tuple[torch.optim.Optimizer, Any]:
        """The optimiser of all parameters that require grad, and its scheduler if the user wants one."""
        optimizer = self._optimizer(robust_loss)
        if self.scheduler is None:
            return optimizer, None
        if isinstance(self.scheduler, str):
            return optimizer, _EpochScheduler(_timm_scheduler(optimizer, self.scheduler, plan))
        return optimizer, self.scheduler(optimizer) if callable(self.scheduler) else self.scheduler

    def _optimizer(self, robust_loss: Any) -> torch.optim.Optimizer:
        wanted = self.optimizer
        if isinstance(wanted, torch.optim.Optimizer):
            held = {id(parameter) for group in wanted.param_groups for parameter in group["params"]}
            heads = list(robust_loss.heads.parameters())
            if held.isdisjoint(map(id, robust_loss.model.parameters())):
                raise ValueError(
                    "the optimizer given holds no parameter of this model, so nothing would be trained: make it from "
                    "model.parameters()"
                )
            missing = [p for p in heads if p.requires_grad and id(p) not in held]
            if missing:  # the heads came into being after the user's optimiser
                wanted.add_param_group({"params": missing})
            return wanted
        if callable(wanted):
            made: torch.optim.Optimizer = wanted([p for p in robust_loss.parameters() if p.requires_grad])
            return made
        known = [str(name) for name in list_optimizers()]
        if wanted not in known:
            raise ValueError(f"unknown optimizer {wanted!r}: timm knows {', '.join(known)}")
        fused: dict[str, Any] = {"fused": True} if _fuses(wanted, robust_loss) else {}
        made = create_optimizer_v2(robust_loss, opt=wanted, lr=self.lr, weight_decay=self.weight_decay, **fused)
        return made

    def __str__(self) -> str:
        clip = "" if self.clip_grad is None else f", gradients clipped at {self.clip_grad:g}"
        average = f", weights averaged at {self.ema:g}" if self.ema else ""
        if not isinstance(self.optimizer, str):
            return f"the optimizer given{clip}{average}"
        return f"{self.optimizer} lr {self.lr:g}, weight decay {self.weight_decay:g}{clip}{average}"


def _fuses(optimizer: str, robust_loss: nn.Module) -> bool:
    """Whether all weights can be updated by one kernel, and that saves time: on a CPU it is 0.3% of a step at most."""
    devices = {parameter.device.type for parameter in robust_loss.parameters()}
    floats = all(parameter.is_floating_point() for parameter in robust_loss.parameters())
    return optimizer in FUSED and floats and devices <= FUSED_ON


class _EpochScheduler:
    """A timm scheduler, which wants to know the epoch, behind torch's interface."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler, self.epoch = scheduler, 0

    def step(self) -> None:
        self.epoch += 1
        self.scheduler.step(self.epoch)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.scheduler.step(self.epoch)


def _timm_scheduler(optimizer: torch.optim.Optimizer, name: str, plan: Plan) -> Any:
    try:
        made, _ = create_scheduler_v2(optimizer, sched=name, num_epochs=plan.epochs)
    except ValueError:
        made = None
    if made is None:
        raise ValueError(f"unknown scheduler {name!r}: timm knows cosine, tanh, step, multistep, plateau, poly")
    return made


def default_recipe(model: nn.Module, images: Tensor, pace: float = 1.0, **given: Any) -> Recipe:
    """The customary recipe for the kind of backbone and the image size, with what the user gave in its place.

    Args:
        pace: a factor of the customary learning rate for small images.
        given: fields of Recipe; None stands for the customary value.
    """
    large = is_large(images)
    ema, pace = (0.9998, 1.0) if large else (0.995, pace)
    if patch_size_of(model) is not None:
        chosen = Recipe("adamw", pace * 5e-4, 0.05, 1.0, ema)
    else:
        chosen = Recipe("sgd", pace * 0.05, 1e-4 if large else 5e-4, None, ema)
    return replace(chosen, **{key: value for key, value in given.items() if value is not None})
