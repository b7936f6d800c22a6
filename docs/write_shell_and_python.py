"""Writes the tables of docs/shell-and-python.md from the options and signatures: `python docs/write_shell_and_python.py`."""

from collections.abc import Iterable
from pathlib import Path

from robusttune.cli.options import COMMANDS, GROUPS, REQUIRED, RUN, group_of, options_of
from robusttune.cli.signatures import parameters_of

PAGE = Path(__file__).parent / "shell-and-python.md"
BEGIN, END = "<!-- options -->\n", "<!-- end -->"
# Functions of the commands that take no model and no images.
FUNCTIONS = {
    "report": "measuring/report.py:report",
    "compare": "measuring/compare.py:compare",
    "replay": "training/replay.py:replay",
    "estimate": "training/harden.py:harden",
    "save": "sharing/save.py:save",
    "push": "sharing/push.py:push_to_hub",
    "export": "sharing/export.py:export",
}
# In Python, the model and the loader are objects: what makes them in the shell.
OBJECTS = {
    "model": "the module: `timm.create_model(…)`, or the folder of a run",
    "data": "the `DataLoader`",
    "split": "the `DataLoader`",
    "data_dir": "the `DataLoader`",
    "data_args": "the `DataLoader`",
    "size": "the `DataLoader`'s transform",
    "channels": "the `DataLoader`'s transform",
    "batch_size": "the `DataLoader`",
    "workers": "the `DataLoader`'s `num_workers=`",
    "checkpoint": "`init_from=` of `harden`, `robusttune.load(…)`, or `load_state_dict`",
    "pretrained": "`timm.create_model(…, pretrained=True)`",
    "model_args": "arguments of `timm.create_model`",
    "classes": "`timm.create_model(…, num_classes=…)`",
    "classes_file": "the data set's `classes`",
}
# Options of the shell, by the argument or the call in Python that does the same.
ELSEWHERE = {
    "val_split": "`val_loader=`",
    "test_split": "`test_loader=`",
    "unlabeled": "`unlabeled_loader=`",
    "unlabeled_split": "`unlabeled_loader=`",
    "untrained": "nothing: in Python, an untrained model is a warning",
    "trust": "`robusttune.load(folder)`, which trusts it",
    "require": "`records.require(…)`",
    "fail_if_worse": "`robusttune.compare(…)`, and `not_worse`",
    "records": "`runs=`",
    "which": "`robusttune.estimate(…, which=…)`",
    "subset": "`robusttune.estimate(…, subset=…)`",
    "devices": "`robusttune.estimate(…, devices=…)`",
}
PLACES = ("the first argument", "the second argument")
SHELL_ONLY, PYTHON_ONLY = "– (from the shell only)", "– (from Python only)"
# Arguments of Python, by the option that stands for them.
OPTIONS = {
    "runs": "`records`",
    "loader": "`--data`",
    "images": "`--data`",
    "val_loader": "`--val_split`",
    "test_loader": "`--test_split`",
    "unlabeled_loader": "`--unlabeled`",
    "init_from": "`--checkpoint`",
    "classes": "`--classes_file`",
}


def sections() -> str:
    """The options that name the model and the images, then a section for each command."""
    objects = _table((f"`--{name}`", argument) for name, argument in OBJECTS.items())
    head = f"### The model and the images\n\nThey are objects in Python:\n\n{objects}"
    return "\n".join([head, *(f"### `{name}`\n\n{_section(name)}" for name in COMMANDS)])


def _section(command: str) -> str:
    options = options_of(command)
    place = COMMANDS[command].function or FUNCTIONS.get(command)
    arguments = parameters_of(place) if place else {}
    by_place = dict(zip((name for name in options if not options[name].keyword), PLACES, strict=False))
    shared = [name for name in options if name in arguments and name not in {*OBJECTS, *by_place}]
    text = "Model and images: see above.\n\n" if COMMANDS[command].function else ""
    groups: dict[str, list[str]] = {}
    for name in shared:
        title = group_of(command, name)
        groups.setdefault(RUN if title == REQUIRED else title, []).append(f"`{name}`")
    lines = [f"- {title}: {', '.join(groups[title])}\n" for title in (*GROUPS, RUN) if title in groups]
    text += f"Spelt alike, `--NAME` and `NAME=`:\n\n{''.join(lines)}\n" if lines else ""
    rows = [
        (
            f"`{name.upper()}`, without an option" if name in by_place else f"`--{name}`",
            ELSEWHERE.get(name, by_place.get(name, PLACES[1] if (command, name) == ("save", "out") else SHELL_ONLY)),
        )
        for name in options
        if name not in {*shared, *OBJECTS}
    ]
    named = set(ELSEWHERE.values()) & {argument for _, argument in rows}
    rows += [
        (OPTIONS.get(name, PYTHON_ONLY), f"`{name}=`")
        for name in arguments
        if name not in options and name != "model" and f"`{name}=`" not in named
    ]
    return text + (_table(rows) if rows else "")


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return "| in the shell | in Python |\n|---|---|\n" + "".join(
        f"| {option} | {argument} |\n" for option, argument in rows
    )


def written(page: str) -> str:
    """The page with new tables."""
    head, _, rest = page.partition(BEGIN)
    return f"{head}{BEGIN}\n{sections()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
