"""The optimiser and the scheduler of a run, with customary values by backbone and image size."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

from timm.optim import create_optimizer_v2, list_optimizers  # type: ignore[attr-defined]
from timm.scheduler.scheduler import Scheduler as TimmScheduler
from timm.scheduler.scheduler_factory import create_scheduler_v2
from torch import Tensor, nn

from robusttune.model.input_shapes import is_large, patch_size_of
from robusttune.plugins import did_you_mean
from robusttune.training.presets import EARLIER, PRESETS, Preset
from robusttune.training.robust_loss import RobustLoss
from robusttune.training.settings import Optimizer, OptimizerLike, Scheduler, SchedulerLike, Updates
from robusttune.types import SCHEDULER, has, shown

FUSED = ("sgd", "momentum", "adam", "adamw")  # timm's names of torch's own
FUSED_ON = {"cuda"}
RATES = {"sgd": 0.05, "momentum": 0.05, "adamw": 5e-4}  # customary ones of named optimisers


@dataclass(frozen=True)
class Recipe:
    """The update of the weights.

    Attributes:
        optimizer: a name that timm knows, a torch optimiser, or a function (parameters) -> optimiser.
        lr: peak learning rate of a named optimiser; by default the usual one of "sgd", "momentum" or "adamw".
        weight_decay: weight decay of a named optimiser; by default the usual one of "sgd", "momentum" or "adamw".
        clip_grad: largest norm of the gradient; None for no limit, in `harden` for the usual one.
        ema: decay of the exponential moving average of the weights, per step; 0 for none.
        scheduler: None for a short rise and half a cosine; a name that timm knows, a torch scheduler, or a function
            (optimizer) -> scheduler, which is stepped after each epoch.
    """

    optimizer: OptimizerLike
    lr: float
    weight_decay: float
    clip_grad: float | None
    ema: float
    scheduler: SchedulerLike | None = None

    def build(self, robust_loss: RobustLoss, epochs: int) -> tuple[Optimizer, Scheduler | None]:
        """Build the optimiser of all parameters that require grad, and its scheduler if the user wants one.

        Args:
            epochs: the number of epochs of the run, for timm's schedulers.

        Raises:
            ValueError: a name that timm does not know, or an optimiser of another model.
        """
        optimizer = self._optimizer(robust_loss)
        if self.scheduler is None:
            return optimizer, None
        if isinstance(self.scheduler, str):
            return optimizer, _EpochScheduler(_timm_scheduler(optimizer, self.scheduler, epochs))
        scheduler = self.scheduler if has(self.scheduler, SCHEDULER) else _made("scheduler", self.scheduler, optimizer)
        if not has(scheduler, SCHEDULER):
            raise ValueError(
                f"scheduler= made {shown(scheduler)}, but a torch scheduler with {', '.join(SCHEDULER)} is needed"
            )
        _check_step(scheduler)
        return optimizer, cast(Scheduler, scheduler)

    def _optimizer(self, robust_loss: RobustLoss) -> Optimizer:
        wanted = self.optimizer
        if isinstance(wanted, Optimizer):
            return _with_heads(wanted, robust_loss)
        if callable(wanted):
            made = _made("optimizer", wanted, [each for each in robust_loss.parameters() if each.requires_grad])
            if not isinstance(made, Optimizer):
                raise ValueError(f"optimizer= made {shown(made)}, but a torch.optim.Optimizer is needed")
            return made
        known = [str(name) for name in list_optimizers()]
        if wanted not in known:
            raise ValueError(
                f"unknown optimizer {wanted!r}{did_you_mean(wanted, known)}: timm knows {', '.join(known)}"
            )
        fused: dict[str, Any] = {"fused": True} if _fuses(wanted, robust_loss) else {}
        # As floats, since torch computes with whole numbers of 64 bits at most.
        lr, weight_decay = float(self.lr), float(self.weight_decay)
        return create_optimizer_v2(robust_loss, opt=wanted, lr=lr, weight_decay=weight_decay, **fused)

    def __str__(self) -> str:
        clip = "" if self.clip_grad is None else f", gradients clipped at {self.clip_grad:g}"
        average = f", weights averaged at {self.ema:g}" if self.ema else ""
        if not isinstance(self.optimizer, str):
            return f"the user's optimizer{clip}{average}"
        return f"{self.optimizer} lr {self.lr:g}, weight decay {self.weight_decay:g}{clip}{average}"


def _made(name: str, function: object, argument: object) -> object:
    """Call a user's function that makes an optimiser or a scheduler.

    Raises:
        ValueError: it raised an error.
    """
    try:
        return cast(Callable[[object], object], function)(argument)
    except Exception as error:  # whatever a user's function raises
        raise ValueError(
            f"{name}={shown(function)} raised {type(error).__name__}: {error}; it is called with the "
            f"{'parameters' if name == 'optimizer' else 'optimizer'} alone"
        ) from error


def _with_heads(optimizer: Optimizer, robust_loss: RobustLoss) -> Optimizer:
    """Add the parameters of the heads to the user's optimiser, which was built before the heads."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if held.isdisjoint(map(id, robust_loss.model.parameters())):
        raise ValueError(
            "optimizer= holds no parameter of this model, so nothing would be trained: build it from model.parameters()"
        )
    missing = [weight for weight in robust_loss.heads.parameters() if weight.requires_grad and id(weight) not in held]
    if missing:
        optimizer.add_param_group({"params": missing})
    return optimizer


def _fuses(optimizer: str, robust_loss: nn.Module) -> bool:
    """Return True if one kernel can update all weights and saves time; on a CPU it would save at most 0.3% of a step."""
    devices = {parameter.device.type for parameter in robust_loss.parameters()}
    floats = all(parameter.is_floating_point() for parameter in robust_loss.parameters())
    return optimizer in FUSED and floats and devices <= FUSED_ON


def _check_step(scheduler: object) -> None:
    """Raise a ValueError for a scheduler whose `step` cannot be called without arguments, before an epoch is spent."""
    try:
        inspect.signature(scheduler.step).bind()  # type: ignore[attr-defined]
    except ValueError:  # nobody knows its arguments
        return
    except TypeError as error:
        raise ValueError(
            f"scheduler= is a {type(scheduler).__name__}, whose step() needs arguments ({error}), but it is called without any after each "
            "epoch: pass one that goes by epochs, or an object whose step() calls it"
        ) from error


@contextmanager
def lent(updates: Updates) -> Iterator[None]:
    """Restore the settings of the user's torch optimiser after this context, so that the optimiser can be used again.

    A run lowers its learning rate to 0, and adds the heads. With a scheduler that is an object, both keep their state instead.
    """
    optimizer = updates.optimizer
    if not isinstance(optimizer, Optimizer) or has(updates.scheduler, SCHEDULER):
        yield
        return
    before = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    try:
        yield
    finally:
        for added in optimizer.param_groups[len(before) :]:
            for parameter in added["params"]:
                optimizer.state.pop(parameter, None)
        del optimizer.param_groups[len(before) :]
        for group, settings in zip(optimizer.param_groups, before, strict=True):
            parameters = group["params"]
            group.clear()
            group.update({"params": parameters, **settings})


class _EpochScheduler:
    """Adapter of a timm scheduler, whose `step` takes the epoch, to torch's interface."""

    def __init__(self, scheduler: TimmScheduler) -> None:
        self.scheduler, self.epoch = scheduler, 0

    def step(self) -> None:
        self.epoch += 1
        self.scheduler.step(self.epoch)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.scheduler.step(self.epoch)


def _timm_scheduler(optimizer: Optimizer, name: str, epochs: int) -> TimmScheduler:
    if name == "plateau":
        raise ValueError(
            "scheduler='plateau' lowers the rate by a metric, but a run passes none, so the rate would never change: leave "
            "scheduler= out, or name another"
        )
    try:
        scheduler, _ = create_scheduler_v2(optimizer, sched=name, num_epochs=epochs)
    except ValueError:
        scheduler = None
    if scheduler is None:
        raise ValueError(f"unknown scheduler {name!r}: timm knows cosine, tanh, step, multistep, poly")
    timm_scheduler: TimmScheduler = scheduler
    return timm_scheduler


def default_recipe(model: nn.Module, images: Tensor, updates: Updates, preset: Preset | None = None) -> Recipe:
    """Return the customary recipe for the backbone and the image size, with the user's values in place of the customary.

    Args:
        images: (N,C,H,W), as the model takes them.
        updates: the user's values; None stands for the customary one.
        preset: with a factor of the customary learning rate for small images, and a limit of the gradient, where the optimiser is
            not the user's; None for neither.

    Raises:
        ValueError: a named optimiser without a rate, for which none is customary.
    """
    preset = preset or PRESETS[EARLIER]
    large = is_large(images)
    ema, pace, clip = (0.9998, 1.0, None) if large else (0.995, preset.pace, preset.clip_grad)
    clip = clip if updates.optimizer is None else None
    patches, named = patch_size_of(model) is not None, updates.optimizer if isinstance(updates.optimizer, str) else None
    name = named if named in RATES else "adamw" if patches else "sgd"
    if named not in (None, *RATES) and named in list_optimizers() and updates.lr is None:
        raise ValueError(
            f"no learning rate is customary for optimizer={named!r}, only for {', '.join(RATES)}: pass lr="
        )
    decay = 0.05 if name == "adamw" else 1e-4 if large else 5e-4
    customary = Recipe(name, pace * RATES[name], decay, 1.0 if patches else clip, ema)
    return replace(customary, **{name: value for name, value in vars(updates).items() if value is not None})
