"""The command to go on with, as a line that can be pasted into a shell."""

import shlex
from collections.abc import Mapping
from pathlib import Path

import yaml

from robusttune.cli.look import JUDGING, TESTING, TRAINING
from robusttune.cli.options import Arguments, Sources, default_of, options_of
from robusttune.cli.values import read
from robusttune.model.trust import LIBRARIES
from robusttune.run.settings import as_written

# Splits to measure on, by preference; timm finds those of JUDGING by each other's names.
HELD = (*TESTING, *JUDGING, *TRAINING)
FINETUNE = 5  # epochs, as in the examples
# Options that a backbone's pre-training and the hardening after it have in common.
SHARED = ("tasks", "norm", "eps", "augment", "mean", "std", "classifier", "precision", "device", "progress")


def command_of(command: str, values: Mapping[str, object], *words: str) -> str:
    """Write a command with these options, without those at their defaults.

    Args:
        command: its name.
        values: by option; those that the command does not have are left out.
        words: arguments without a name.

    Example:
        >>> command_of("harden", {"model": "timm:resnet18", "data": "my images", "eps": 8 / 255, "epochs": 10, "tune": True})
        "robusttune harden --model timm:resnet18 --data 'my images' --eps 8/255 --tune"
    """
    options = options_of(command)
    parts = ["robusttune", command, *words]
    for name, option in options.items():
        if name not in values or not option.keyword:
            continue
        value, default = values[name], option.default
        known = not option.required and default is not ... and read(option, default_of(option)) == value
        parts += [] if known else _option(name, value)
    return shlex.join(parts)


def _option(name: str, value: object) -> list[str]:
    if value is True:
        return [f"--{name}"]
    several = isinstance(value, list | tuple) and len(value) > 1
    texts = [_text(each) for each in (value if several else [value])]  # type: ignore[attr-defined]
    return [f"--{name}={texts[0]}"] if texts[0].startswith("--") else [f"--{name}", *texts]


def _text(value: object) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, float):
        return as_written(value)
    if isinstance(value, str | int):
        return str(value)
    plain = list(value) if isinstance(value, tuple) else value
    return str(yaml.safe_dump(plain, default_flow_style=True, width=1e9, sort_keys=False)).strip()


def after_harden(sources: Sources, arguments: Arguments, val_split: str | None) -> str:
    """Write the command that evaluates the model of a run of harden."""
    names = ("data", "data_dir", "data_args", "batch_size", "workers")
    values = {name: getattr(sources, name) for name in names}
    values |= {"split": _split_to_measure(sources, val_split), "device": arguments["device"]}
    values["out"] = _new_folder(str(Path(arguments["out"]) / "evaluation"))  # where report and compare look for it
    if sources.model.partition(":")[0] not in LIBRARIES:  # a folder must not name code to call, so the user does
        values["model"] = sources.model
    return command_of("evaluate", values, str(arguments["out"]))


def after_evaluate(out: str) -> str:
    """Write the command that makes a page of what was measured."""
    return shlex.join(["robusttune", "report", out, "--out", _new_folder(str(Path(out) / "report"))])


def after_pretrain(sources: Sources, arguments: Arguments) -> str:
    """Write the command that hardens a pre-trained model, with its heads, after its classifier has been trained."""
    out = str(arguments["out"])
    shared = {name: arguments[name] for name in SHARED}
    ends = {"checkpoint": out, "heads": out, "finetune": FINETUNE, "out": _new_folder(f"{out}-hardened")}
    return command_of("harden", {**vars(sources), **shared, **ends})


def after_estimate(sources: Sources, arguments: Arguments, val_split: str | None, others: Arguments) -> str:
    """Write the command that does what was estimated, with these other options of harden."""
    ends = {"val_split": val_split, "out": arguments["out"] or _new_folder("runs/hardened"), "resume": False}
    return command_of("harden", {**vars(sources), **arguments, **others, **ends})


def after_plan(sources: Sources, arguments: Arguments, splits: Mapping[str, str | None]) -> str:
    """Write the command that follows a plan."""
    space = {name: arguments[name] for name in ("mean", "std", "classifier", "device", "progress", "out")}
    return command_of("poc", {**vars(sources), **splits, **space, "resume": True})


def _new_folder(name: str) -> str:
    """Return this name of a folder, with a number behind it if it exists already."""
    number, free = 1, name
    while Path(free).exists():
        number, free = number + 1, f"{name}-{number + 1}"
    return free


def _split_to_measure(sources: Sources, val_split: str | None) -> str:
    """Return a split for testing, else the one that chose the epoch, else the one most likely not trained on."""
    folder = Path(sources.data)
    inside: list[str] = []
    if sources.data_dir is None and folder.is_dir():
        inside = [path.name for path in folder.iterdir() if path.is_dir() and path.name.lower() in HELD]
    found = min(inside, key=lambda name: HELD.index(name.lower()), default=JUDGING[0])
    if val_split is not None and found.lower() not in TESTING:
        return val_split
    return JUDGING[0] if found in JUDGING else found
