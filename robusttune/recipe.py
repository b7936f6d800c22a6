"""Customary settings by the kind of backbone, the image size and the norm."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.optim import create_optimizer_v2, list_optimizers  # type: ignore[attr-defined]
from timm.scheduler.scheduler_factory import create_scheduler_v2
from torch import Tensor, nn

from robusttune.heads import TASKS
from robusttune.lookup import configured, one_of
from robusttune.schedule import Plan
from robusttune.shapes import patch_size_of
from robusttune.threat import Attack, ThreatModel, canonical, default_eps

LARGE_SIDE = 160
FUSED = ("sgd", "momentum", "adam", "adamw")  # timm's names of torch's own
FUSED_ON = {"cuda"}
# What harden is for: the norm and the augmentation unless given.
PURPOSES = {"attacks": ("linf", "auto"), "corruptions": ("l2", "augmix")}


@dataclass(frozen=True)
class Preset:
    """What a run is like where the user has not said otherwise.

    Attributes:
        attack: its name; "auto" for the one by image size and norm.
        tasks: pretext tasks and their weights.
        pace: the peak learning rate of the recipe for small images, as a multiple of the customary one.
        judged: epochs from one judgement on held-out images to the next; the last one is always judged.
        late: the attack of the last quarter of the run and its steps, where the first is not the user's; None for no other.
    """

    attack: str
    tasks: Mapping[Any, float] | None
    pace: float = 1.0
    judged: int = 1
    late: tuple[str, int] | None = None


PRESETS = {
    "standard": Preset("auto", TASKS),
    "fast": Preset("nfgsm", None, pace=4.0, judged=3, late=("pgd", 2)),
}


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
    large = min(images.shape[-2:]) >= LARGE_SIDE
    ema, pace = (0.9998, 1.0) if large else (0.995, pace)
    if patch_size_of(model) is not None:
        chosen = Recipe("adamw", pace * 5e-4, 0.05, 1.0, ema)
    else:
        chosen = Recipe("sgd", pace * 0.05, 1e-4 if large else 5e-4, None, ema)
    return replace(chosen, **{key: value for key, value in given.items() if value is not None})


def chosen_preset(name: str) -> Preset:
    """The preset of this name.

    Raises:
        ValueError: there is none.
    """
    return PRESETS[one_of("preset", name, tuple(PRESETS))]


def default_attack(
    images: Tensor, threat: ThreatModel, attack: Any, steps: int | None, preset: Preset = PRESETS["standard"]
) -> tuple[Any, int | None]:
    """The attack and its steps where the user says "auto": PGD-10 for small images; above 160 px PGD-7 in l2, and APGD-2
    in linf, where radii are small. A preset may name another; with steps that it has none of, that is APGD.

    Source: Pang et al., arXiv:2010.00467; above 160 px Singh et al., arXiv:2303.01870.
    """
    if attack != "auto":
        return attack, steps
    if preset.attack != "auto":
        return (preset.attack, None) if steps is None else ("apgd", steps)
    if min(images.shape[-2:]) < LARGE_SIDE:
        return "pgd", steps or 10
    return ("pgd", steps or 7) if threat.norm == "l2" else ("apgd", steps or 2)


def late_attack(preset: Preset) -> Attack | None:
    """The attack of the last quarter of a run, if the preset has one."""
    return None if preset.late is None else configured("attacks", preset.late[0], steps=preset.late[1], step_size=None)


def for_purpose(purpose: str, norm: Any, augment: Any) -> tuple[Any, Any]:
    """The norm and the augmentation that serve a purpose, unless the user gave them.

    Raises:
        ValueError: an unknown purpose.
    """
    usual_norm, usual_augment = PURPOSES[one_of("purpose", purpose, tuple(PURPOSES))]
    return usual_norm if norm is None else norm, usual_augment if augment == "auto" else augment


def default_radius(purpose: str, norm: Any, images: Tensor) -> float:
    """The customary radius for images (N,C,H,W); against corruptions a fifth of it, above 160 px a sixtieth.

    Source: Kireev et al., arXiv:2103.02325: l2 radii of 0.1 for CIFAR-10 and 0.05 for 224 px.
    """
    radius = default_eps(canonical(norm), tuple(images.shape[1:]))
    if purpose == "attacks":
        return radius
    return radius / (5 if min(images.shape[-2:]) < LARGE_SIDE else 60)
