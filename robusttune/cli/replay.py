"""The command that repeats a run from its folder."""

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from robusttune.cli.classifiers import as_before
from robusttune.cli.options import Arguments, Sources
from robusttune.cli.prepared import other_split, prepared
from robusttune.cli.runs import labels_of
from robusttune.cli.splits import say_unread
from robusttune.cli.unlabeled import more_images, teacher_of
from robusttune.model.trust import check_named_by_file, trusting
from robusttune.run.about import read_run
from robusttune.training.replay import replay, run_facts_of

PLAIN = re.compile(
    r"[\w./\\ ()+\-\[\]%]*|[\w-]+\[[\w%:+]*\]|[A-Za-z]:[\w./\\ ()+-]*"
)  # a folder, or a split such as train[:10%]
DATA_ARGS = ("input_key", "target_key", "class_map", "num_samples", "num_classes")


def run_replay(
    run: str,
    *,
    model: str | None = None,
    trust: bool = False,
    out: str | None = None,
    tolerance: float = 0.02,
    device: str | None = None,
) -> int:
    """Repeat a run from its folder, and compare: the exit code is 0 if both agree.

    Examples:
      robusttune replay runs/a

    Args:
        run: the folder of a run of harden or pretrain.
        model: the model of the run, if it is a function of yours: name it again, because a folder must not choose code to call.
        trust: call what the folder names, without naming it once more.
        out: a folder for the repeated run, which is otherwise deleted.
        tolerance: the largest difference in the log that counts as close.
        device: the device to work on; by default that of the run.
    """
    folder = Path(run)
    facts = run_facts_of(folder)
    if "command" not in facts:
        raise ValueError(
            f"the run in {str(folder)!r} was begun from Python, so it does not say where its model and images come from: call "
            "robusttune.replay(folder, model, loader)"
        )
    command = facts["command"]
    sources = Sources(**{field.name: command[field.name] for field in fields(Sources) if field.name in command})
    if model not in (None, sources.model):
        raise ValueError(
            f"the run in {str(folder)!r} trained {sources.model}, but --model is {model}: pass the same one"
        )
    with trusting(*([] if model is None else [model]), all_of_them=trust):
        check_named_by_file(sources.model, sources.model_args, folder)
    if not trust:
        _check_data(command, folder)
    run_before, before = read_run(folder), facts["arguments"]
    labels = None if facts["run"] == "pretrain" else labels_of(run_before)
    known = {"seed": before["seed"], "finetune": before.get("finetune", 0)}
    start, loader, _ = prepared(as_before(sources, run_before), known, labels=labels, shuffle=True, alone=True)
    held_out = other_split(sources, command.get("val_split"), loader)
    loaders: Arguments = {} if held_out is None else {"val_loader": held_out}
    more = more_images(sources, command.get("unlabeled"), command.get("unlabeled_split", "train"))
    loaders |= {} if more is None else {"unlabeled_loader": more}
    if "teacher" in facts["objects"]:
        loaders["teacher"] = teacher_of(command["teacher"], sources, loader)
    repeated = replay(folder, start, loader, out=out, tolerance=tolerance, device=device, **loaders)
    print(repeated.table())
    say_unread(loader, held_out, more)
    return 0 if repeated.same or repeated.close else 1


def _check_data(command: Mapping[str, Any], folder: Path) -> None:
    """Raise a ValueError for images that a run's folder names and that are not plain files on this machine.

    Readers of other data sets fetch them, and some take a command instead of a file, and run it.
    """
    named = {name: command.get(name) for name in ("data", "unlabeled") if command.get(name)}
    foreign = [
        f"{name} {place!r}"
        for name, place in named.items()
        if not (Path(str(place)).is_dir() or str(place).partition("/")[0] == "torch")
    ]
    words = {
        name: command.get(name) for name in ("data_dir", "split", "val_split", "unlabeled_split") if command.get(name)
    }
    foreign += [f"{name} {text!r}" for name, text in words.items() if not PLAIN.fullmatch(str(text))]
    foreign += [f"data_args with {name}" for name in command.get("data_args") or {} if name not in DATA_ARGS]
    if foreign:
        raise ValueError(
            f"{str(folder)!r} names {', '.join(foreign)}, with which images are fetched or code may be run: if you trust the folder, "
            "pass --trust"
        )
