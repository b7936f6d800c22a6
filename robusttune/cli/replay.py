"""The command that repeats a run from its folder."""

from dataclasses import fields
from pathlib import Path

from robusttune.cli.classifiers import as_before
from robusttune.cli.options import Arguments, Sources
from robusttune.cli.prepared import other_split, prepared
from robusttune.cli.runs import labels_of
from robusttune.cli.splits import say_unread
from robusttune.cli.unlabeled import more_images, teacher_of
from robusttune.model.trust import check_named_by_file
from robusttune.run.about import read_run
from robusttune.training.replay import replay, run_facts_of


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
        model: that of the run, named once more: needed for a function of yours, as a folder must not name code to call.
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
    if not trust and model is None:
        check_named_by_file(sources.model, sources.model_args, folder)
    _check_data(sources, folder, trust)
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


def _check_data(sources: Sources, folder: Path, trust: bool) -> None:
    """Raise a ValueError for arguments of the data set with which a library would run code that comes with the data."""
    asked = sorted({"trust_remote_code"} & set(sources.data_args or {}))
    if asked and not trust:
        raise ValueError(
            f"{str(folder)!r} has data_args with {asked[0]}, which runs code that comes with the data: if you trust it, pass --trust"
        )
