"""Commands and their options, which are arguments of the library's functions; nothing here imports torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeAlias

from robusttune import plugins
from robusttune.cli.signatures import Parameter, parameters_of
from robusttune.cli.values import words_of

# Arguments that are passed on to a function of the library, by name.
Arguments: TypeAlias = dict[str, Any]
# One or several entries; a name, or {name: settings}.
Listed: TypeAlias = "str | Mapping[str, Any] | Sequence[Any] | None"


class Command(NamedTuple):
    """A command, which the function run_NAME runs; the parameters of that function are options, too.

    Attributes:
        file: the file of that function.
        function: the function of the library that it calls; None if the command needs no model and no images.
        split: the default split of the data.
        required: options that have no usable default.
    """

    file: str = "cli/commands.py"
    function: str | None = None
    split: str = "train"
    required: tuple[str, ...] = ()


COMMANDS = {
    "harden": Command(function="training/harden.py:harden", required=("model", "data", "out")),
    "estimate": Command(function="training/harden.py:harden", required=("model", "data")),
    "evaluate": Command(function="measuring/evaluate.py:evaluate", split="validation", required=("model", "data")),
    "pretrain": Command(function="training/pretrain.py:pretrain", required=("model", "data", "out")),
    "report": Command(),
    "compare": Command(file="cli/compare.py"),
    "poc": Command(function="trial/poc.py:poc", required=("model", "data")),
    "replay": Command(file="cli/replay.py"),
    "advise": Command(file="cli/advise.py", function="training/advice/advise.py:advise", required=("data",)),
    "draw_eps": Command(file="cli/advise.py", function="measuring/eps_picture.py:draw_eps", required=("data", "out")),
    "save": Command(file="cli/sharing.py"),
    "push": Command(file="cli/sharing.py"),
    "export": Command(file="cli/sharing.py"),
    "doctor": Command(file="cli/doctor.py"),
}
# Arguments that cannot be written as text, or that other options replace.
OBJECTS = {
    *("val_loader", "unlabeled_loader", "test_loader", "criterion", "on_epoch", "notes", "scheduler", "init_from"),
    *("normalized", "sharded", "training_loader"),
}
PLUGINS: dict[str, plugins.Kind] = {
    "norm": "norms",
    "attack": "attacks",
    "objective": "objectives",
    "tasks": "tasks",
    "which": "evaluations",
    "arms": "trial.arms",
}
REQUIRED = "required"  # the group of options without which a command does nothing
RUN = "run"  # the group of all options that are in no other group
GROUPS = {
    "model and images": {
        *("run", "model", "data", "checkpoint", "pretrained", "model_args", "classes", "classes_file", "data_dir"),
        *("data_args", "split", "untrained"),
        *("size", "channels", "batch_size", "workers", "val_split", "test_split", "unlabeled", "unlabeled_split"),
        *("teacher", "unlabeled_share", "drop_foreign"),
    },
    "method": {
        *("norm", "eps", "purpose", "preset", "tasks", "attack_tasks", "views", "objective", "attack", "steps"),
        *("step_size", "awp", "eps_ramp", "augment", "which", "subset", "threats", "corruptions", "arms", "images"),
    },
    "gate": {"require", "summary", "junit", "sarif"},
    "training": {
        *(
            "pretrain_epochs",
            "finetune",
            "epochs",
            "max_steps",
            "time_budget",
            "optimizer",
            "lr",
            "weight_decay",
            "clip_grad",
            "heads",
        ),
        *(
            "accumulate",
            "update_batch",
            "micro_batch",
            "checkpointing",
            "ema",
            "min_clean",
            "precision",
            "compile",
            "channels_last",
        ),
        *("tune",),
    },
}


@dataclass(frozen=True)
class Sources:
    """The sources of a run: where its model and its images come from.

    Attributes:
        model: 'timm:NAME', 'torchvision:NAME' or 'package.module:function'.
        data: a folder of images by class, or timm's name of a data set, such as torch/cifar10.
        checkpoint: weights of the model: a file, or the folder of a run.
        pretrained: fetch the weights that timm or torchvision publish.
        model_args: more arguments of the function that makes the model, such as {img_size: 32}.
        classes: outputs of the model, which gets a new classifier if it has another number; by default the classes of the data for
            the weights that timm or torchvision publish, and those that it has for another model.
        classes_file: a text file with the names of the model's classes, one a line, in the order of its outputs; by default
            those of its run, those that the model came with, or the folders of the training split, sorted as text.
        data_dir: the folder that holds a named data set.
        data_args: more arguments of timm's data set factory, such as {input_key: img}.
        split: the split of the data to use, such as train; in a folder, the subfolder of this name.
        size: side of the images in pixels.
        channels: 3 for colour, 1 for grey.
        batch_size: images in a batch.
        workers: processes that read images.
    """

    model: str
    data: str
    checkpoint: str | None = None
    pretrained: bool = False
    model_args: Mapping[str, Any] | None = None
    classes: int | None = None
    classes_file: str | None = None
    data_dir: str | None = None
    data_args: Mapping[str, Any] | None = None
    split: str = "train"
    size: int = 224
    channels: int = 3
    batch_size: int = 128
    workers: int = 0

    def __post_init__(self) -> None:
        passed = self.model_args or {}
        by_library = any(passed.get(name) for name in ("pretrained", "weights"))  # the libraries' own arguments
        if by_library and self.model.startswith(("timm:", "torchvision:")):
            object.__setattr__(self, "pretrained", True)


class Request(NamedTuple):
    """A command and the values of all its options.

    Attributes:
        command: its name.
        sources: the model and the images; None if the command needs none.
        arguments: the arguments of the library's function.
        extra: arguments of the function run_NAME.
    """

    command: str
    sources: Sources | None
    arguments: Arguments
    extra: Arguments


def options_of(command: str) -> dict[str, Parameter]:
    """List the options of a command by name; a parameter of run_NAME takes the place of the library's of the same name.

    Example:
        >>> options = options_of("harden")
        >>> "eps" in options, "loader" in options, "batch_size" in options
        (True, False, True)
    """
    file, function, split, _ = COMMANDS[command]
    extra = parameters_of(f"{file}:run_{command}")
    if function is None:
        return extra
    sources = parameters_of("cli/options.py:Sources")
    passed = {
        name: option for name, option in parameters_of(function).items() if option.keyword and name not in OBJECTS
    }
    extra = {name: option for name, option in extra.items() if name not in ("sources", "arguments")}
    return {**sources, "split": sources["split"]._replace(default=split), **passed, **extra}


def evaluation_arguments(arguments: Arguments) -> Arguments:
    """Select the arguments of harden that evaluate has, too, for an estimate of evaluations.

    Raises:
        ValueError: another one is not its default, so that the user expects an effect.
    """
    passed, defaults = parameters_of("measuring/evaluate.py:evaluate"), options_of("estimate")
    unused = {"out", "resume", "log", "progress"}
    others = {name: value for name, value in arguments.items() if name not in passed and name not in unused}
    wrong = [name for name, value in others.items() if value != defaults[name].default]
    if wrong:
        raise ValueError(
            f"which= asks for the cost of evaluations, which take no {' and no '.join(wrong)}: leave it out"
        )
    return {name: value for name, value in arguments.items() if name in passed and name not in unused}


def group_of(command: str, option: str) -> str:
    """Name the group under which `--help` lists an option of a command."""
    if option in COMMANDS[command].required:
        return REQUIRED
    return next((title for title, names in GROUPS.items() if option in names), RUN)


def request_of(command: str, values: Arguments) -> Request:
    """Sort the values of a command's options by the function or class that takes them."""
    file, function, *_ = COMMANDS[command]
    if function is None:
        return Request(command, None, {}, values)
    names = {field.name for field in fields(Sources)}
    extra = set(parameters_of(f"{file}:run_{command}")) - {"sources", "arguments"}
    return Request(
        command,
        Sources(**{name: value for name, value in values.items() if name in names}),
        {name: value for name, value in values.items() if name not in names | extra},
        {name: value for name, value in values.items() if name in extra},
    )


def default_of(parameter: Parameter) -> str:
    """Write the default of an option as a text of the command line."""
    return parameter.default if isinstance(parameter.default, str) else json.dumps(parameter.default)


def help_of(parameter: Parameter) -> str:
    """Explain an option in one paragraph: its entry in the docstring, its plug-ins, its type and its default."""
    kind = PLUGINS.get(parameter.name)
    known = f"known: {', '.join(plugins.names(kind))}" if kind else ""
    default = "" if parameter.default in (None, ...) else f"default: {default_of(parameter)}"
    notes = "; ".join(note for note in (known, words_of(parameter.types), default) if note)
    return f"{parameter.about.rstrip('.')}{f' ({notes})' if notes else ''}"
