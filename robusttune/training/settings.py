"""The settings of a run, in groups, one for each part of the library.

`harden`, `pretrain` and `estimate` take them one by one; their docstrings explain each.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, Protocol, TypeAlias, TypedDict, TypeVar

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from robusttune.attacks import AttackLike
from robusttune.augmentations import AugmentLike
from robusttune.model.teacher import TeacherLike as TeacherLike
from robusttune.norms import NormLike
from robusttune.objectives import ObjectiveLike
from robusttune.plugins import did_you_mean
from robusttune.run.log import Tracker
from robusttune.run.settings import check_settings, seconds_of
from robusttune.tasks import TasksLike, TaskWeights
from robusttune.types import AutoBool, Channels, DeviceLike, Json, Loader, PathLike, plain_number

Purpose: TypeAlias = Literal["attacks", "corruptions"]
PresetName: TypeAlias = Literal["standard", "thorough", "fast", "joint"]
AttackTasks: TypeAlias = Literal["none", "separate", "joint"]
PrecisionName: TypeAlias = Literal["auto", "fp32", "bf16", "fp16"]
Criterion: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Optimizer: TypeAlias = torch.optim.Optimizer
OptimizerLike: TypeAlias = str | Optimizer | Callable[[list[nn.Parameter]], Optimizer]
UpdateBatch: TypeAlias = int | Literal["auto"] | None
EpochFacts: TypeAlias = dict[str, float]


class Scheduler(Protocol):
    """A learning-rate scheduler that is stepped after each epoch, as torch's are."""

    def step(self) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any], /) -> None: ...


SchedulerLike: TypeAlias = str | Scheduler | Callable[[Optimizer], Scheduler]


@dataclass(frozen=True)
class Loaders:
    """The images of a run: to train on, to choose the epoch by, and without labels; and who labels the last."""

    loader: Loader
    val_loader: Loader | None = None
    unlabeled_loader: Loader | None = None
    teacher: TeacherLike | None = "self"
    unlabeled_share: float | None = None
    drop_foreign: bool = False


@dataclass(frozen=True)
class Adversary:
    """The threat that a run trains against, and the attack that is used in training."""

    norm: NormLike | None = None
    eps: float | None = None
    purpose: Purpose = "attacks"
    preset: PresetName = "standard"
    attack: AttackLike = "auto"
    steps: int | None = None
    step_size: float | None = None
    attack_tasks: AttackTasks = "joint"
    awp: float = 0.0
    eps_ramp: AutoBool = "auto"


@dataclass(frozen=True)
class Learning:
    """The losses of a run, and what they are computed on."""

    tasks: TasksLike = "auto"
    views: int | Literal["all"] = 1
    objective: ObjectiveLike | None = "adversarial"
    criterion: Criterion | None = None
    augment: AugmentLike = "auto"
    classifier: str | None = None
    heads: nn.Module | PathLike | None = None
    min_clean: float | None = None
    init_from: PathLike | None = None

    @property
    def task_weights(self) -> TaskWeights | None:
        """The tasks, after `with_preset` has replaced names by weights."""
        assert self.tasks is None or isinstance(self.tasks, Mapping)
        return self.tasks


@dataclass(frozen=True)
class PixelSettings:
    """The normalisation of the model's input; None for what the loader's transform says."""

    mean: Channels | None = None
    std: Channels | None = None
    normalized: bool | None = None


@dataclass(frozen=True)
class Updates:
    """The update of the weights; None for the customary value, which `default_recipe` knows."""

    optimizer: OptimizerLike | None = None
    scheduler: SchedulerLike | None = None
    lr: float | None = None
    weight_decay: float | None = None
    clip_grad: float | None = None
    ema: float | None = None


@dataclass(frozen=True)
class RunLength:
    """The length of a run, which ends at the first limit (epochs, steps or seconds); and the epochs of the stages before it."""

    epochs: int = 10
    max_steps: int | None = None
    time_budget: float | None = None
    accumulate: int = 1
    update_batch: UpdateBatch = "auto"
    pretrain_epochs: int = 0
    finetune: int = 0


@dataclass(frozen=True)
class Speed:
    """The device, the number format and the fast paths of a run; none of them changes what is computed."""

    precision: PrecisionName = "auto"
    compile: AutoBool = "auto"
    channels_last: AutoBool = "auto"
    tune: AutoBool = "auto"
    micro_batch: int | None = None
    checkpointing: bool = False
    device: DeviceLike = "auto"
    sharded: bool | None = None


@dataclass(frozen=True)
class Output:
    """The seed of a run, and what it writes and shows."""

    out: PathLike | None = None
    resume: bool = False
    checkpoint_every: int | None = None
    seed: int = 0
    log: str | Tracker | None = None
    progress: bool = True
    on_epoch: Callable[[EpochFacts], object] | None = None
    notes: Mapping[str, Json] | None = None


@dataclass(frozen=True)
class RunSettings:
    """All settings of a run.

    Attributes:
        function: the function that the user called.
        names: the names of its parameters, in order.
    """

    function: Literal["harden", "pretrain"]
    names: tuple[str, ...]
    loaders: Loaders
    adversary: Adversary
    learning: Learning
    pixels: PixelSettings
    updates: Updates
    length: RunLength
    speed: Speed
    output: Output

    def __post_init__(self) -> None:
        """Take the numbers of numpy as those of Python, and check all that can be checked without model and images."""
        for each in fields(self):
            group = getattr(self, each.name)
            if is_dataclass(group) and not isinstance(group, type):
                values = {field.name: getattr(group, field.name) for field in fields(group)}
                changed = {
                    name: plain_number(value) for name, value in values.items() if plain_number(value) is not value
                }
                object.__setattr__(self, each.name, replace(group, **changed) if changed else group)
        check_settings(self.arguments(self.names))

    def arguments(self, names: Iterable[str]) -> dict[str, Any]:
        """Return the settings of these names, as the user passed them."""
        groups = (
            self.loaders,
            self.adversary,
            self.learning,
            self.pixels,
            self.updates,
            self.length,
            self.speed,
            self.output,
        )
        values = {field.name: getattr(group, field.name) for group in groups for field in fields(group)}
        return {name: values[name] for name in names if name in values}


class HardenSettings(TypedDict, total=False):
    """The keyword arguments of `harden`, for functions that pass them on: `**settings: Unpack[HardenSettings]`."""

    norm: NormLike | None
    eps: float | None
    purpose: Purpose
    preset: PresetName
    tasks: TasksLike
    attack_tasks: AttackTasks
    views: int | Literal["all"]
    objective: ObjectiveLike | None
    criterion: Criterion | None
    attack: AttackLike
    steps: int | None
    step_size: float | None
    awp: float
    eps_ramp: AutoBool
    augment: AugmentLike
    mean: Channels | None
    std: Channels | None
    normalized: bool | None
    classifier: str | None
    val_loader: Loader | None
    unlabeled_loader: Loader | None
    teacher: TeacherLike | None
    unlabeled_share: float | None
    drop_foreign: bool
    heads: nn.Module | PathLike | None
    pretrain_epochs: int
    finetune: int
    epochs: int
    max_steps: int | None
    time_budget: float | str | None
    optimizer: OptimizerLike | None
    scheduler: SchedulerLike | None
    lr: float | None
    weight_decay: float | None
    clip_grad: float | None
    accumulate: int
    update_batch: UpdateBatch
    micro_batch: int | None
    checkpointing: bool
    ema: float | None
    min_clean: float | None
    precision: PrecisionName
    compile: AutoBool
    channels_last: AutoBool
    tune: AutoBool
    device: DeviceLike
    sharded: bool | None
    out: PathLike | None
    resume: bool
    init_from: PathLike | None
    checkpoint_every: int | None
    seed: int
    log: str | Tracker | None
    progress: bool
    on_epoch: Callable[[EpochFacts], object] | None
    notes: Mapping[str, Json] | None


Group = TypeVar("Group")


def run_settings(loader: Loader, **settings: Unpack[HardenSettings]) -> RunSettings:
    """Sort the arguments of `harden` into their groups; those that are missing have its defaults.

    Raises:
        TypeError: an argument that `harden` does not have.
    """
    known = HardenSettings.__annotations__
    for name in settings:
        if name not in known:
            hint = did_you_mean(name, known) or f": it takes {', '.join(known)}"
            raise TypeError(f"harden has no argument {name!r}{hint}")
    if "time_budget" in settings:
        settings["time_budget"] = seconds_of(settings["time_budget"])

    def group(kind: type[Group], **required: object) -> Group:
        passed = {field.name for field in fields(kind)} & settings.keys()  # type: ignore[arg-type]
        return kind(**{name: settings[name] for name in passed}, **required)  # type: ignore[literal-required]

    return RunSettings(
        "harden",
        tuple(HardenSettings.__annotations__),
        group(Loaders, loader=loader),
        group(Adversary),
        group(Learning),
        group(PixelSettings),
        group(Updates),
        group(RunLength),
        group(Speed),
        group(Output),
    )
