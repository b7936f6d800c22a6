"""The folders of the stages before a run, inside its own: their names, and checks that a run fits existing ones."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from robusttune.run import folder as run_folder
from robusttune.run.about import read_facts, read_run
from robusttune.run.files import RUN
from robusttune.training.settings import Output, RunSettings
from robusttune.types import Json

FOLLOWING = "followed by"  # in the run.json of a stage: the arguments of the whole run


class Stage(NamedTuple):
    """A stage: its folder inside the run's, the argument of `harden` for its number of epochs, and its name in words."""

    folder: str
    argument: str
    name: str


PRETRAINING = Stage("pretrain", "pretrain_epochs", "pre-training")
FINETUNING = Stage("finetune", "finetune", "fine-tuning")
STAGES = (PRETRAINING, FINETUNING)


def noted(settings: RunSettings) -> Output:
    """Return the output settings of a stage before a run, with the arguments of the whole run added to its notes."""
    output = settings.output
    return replace(output, notes={**(output.notes or {}), FOLLOWING: _arguments(settings)})


def _arguments(settings: RunSettings) -> dict[str, Json]:
    names = (name for name in settings.names if name not in run_folder.FREE)
    arguments: dict[str, Json] = run_folder.as_json(settings.arguments(names))
    return arguments


def done_before(settings: RunSettings) -> list[str]:
    """List the stages that the weights have gone through before this run or stage: "pre-trained", "fine-tuned"."""
    if settings.function == "pretrain":
        return []
    following = (settings.output.notes or {}).get(FOLLOWING)
    whole = following if isinstance(following, dict) else {}
    pretrained = settings.length.pretrain_epochs or whole.get(PRETRAINING.argument)
    return ["pre-trained"] * bool(pretrained) + ["fine-tuned"] * bool(settings.length.finetune)


def check_following(out: Path, settings: RunSettings) -> None:
    """Raise a ValueError if stages in a folder, after which no run has begun yet, are those before a run with other arguments.

    Args:
        out: the folder of the run.
        settings: the settings of the whole run, stages included.
    """
    if (out / RUN).exists():  # it is compared with that run
        return
    now = _arguments(settings)
    for stage in STAGES:
        path = out / stage.folder / RUN
        before = read_facts(path).get(FOLLOWING) if path.is_file() else None
        if not isinstance(before, dict):  # of a version that did not write it
            continue
        changed = {key: (before.get(key), now.get(key)) for key in {**before, **now} if before.get(key) != now.get(key)}
        if changed:
            raise run_folder.other_arguments(out, changed, f"it was in its {stage.name}")


def check_earlier(out: Path, wanted: dict[str, int]) -> None:
    """Raise a ValueError if a folder to resume holds stages of other lengths.

    Args:
        out: the folder.
        wanted: epochs by argument, for some of the stages.
    """
    whole = read_run(out)
    begun = whole is not None
    for stage in reversed(STAGES):
        earlier = read_run(out / stage.folder)
        before = None if earlier is None else earlier.arguments.get("epochs")
        if before is None and begun:  # what comes later has begun, so that this had ended, or there was none
            before = 0 if whole is None else whole.arguments.get(stage.argument, run_folder.ADDED[stage.argument])
        begun = begun or earlier is not None
        now = wanted.get(stage.argument, before)
        if before not in (None, now):
            raise ValueError(
                f"the run in {str(out)!r} began with {stage.argument}={before}, but {stage.argument} is {now} now: pass the "
                "same to resume it, or another out= to start afresh"
            )
