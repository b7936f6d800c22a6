"""The mean and std that a model's images are normalised with: the user's, those of its run or its files, or the usual ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from torch import nn

from robusttune.cli.errors import note
from robusttune.cli.model_labels import BESIDE
from robusttune.cli.options import Arguments, Sources
from robusttune.cli.sources import named
from robusttune.model.named import statistics_of
from robusttune.run.about import EarlierRun
from robusttune.types import from_json

Numbers: TypeAlias = Sequence[float] | None
CHANGE = "if it was trained on others, pass --mean and --std"


def with_statistics(arguments: Arguments, sources: Sources, model: nn.Module, run: EarlierRun | None) -> Arguments:
    """Add the mean and std that the model is known for, where the user has passed none.

    A line says which are taken for a checkpoint that does not say on which images it was trained.
    """
    if arguments.get("mean") is not None or arguments.get("std") is not None:
        return {"mean": None, "std": None, **arguments}
    if run is not None:
        mean, std = run.statistics
        return {**arguments, "mean": mean, "std": std}
    mean, std = statistics_of(named(sources), model)
    if sources.checkpoint is not None:
        tell = not arguments.get("resume")  # which the run that is resumed was begun with
        mean, std = _of_checkpoint(Path(sources.checkpoint), sources, mean, std, tell=tell)
    return {**arguments, "mean": mean, "std": std}


def _of_checkpoint(path: Path, sources: Sources, mean: Numbers, std: Numbers, *, tell: bool) -> tuple[Numbers, Numbers]:
    """Return the mean and std in the configuration beside a file of weights; else those of the model."""
    beside = (path if path.is_dir() else path.parent) / BESIDE
    stated = _stated(beside, sources.channels)
    source, taken = f"{str(path)!r} does not say how its images were normalised", (mean, std)
    if stated is not None:
        said = f"the file {str(beside)!r} beside the weights has mean={stated[0]} and std={stated[1]}, which are taken"
        taken = stated
    elif mean is None:
        said = f"{source}, so it gets pixels on [0, 1]: {CHANGE}"
    else:
        said = f"{source}, so mean={tuple(mean)} and std={tuple(std or ())} of {sources.model} are taken: {CHANGE}"
    if tell:
        note(said)
    return taken


def _stated(file: Path, channels: int) -> tuple[Sequence[float], Sequence[float]] | None:
    """Read the mean and std in a configuration of timm; None where it has none for these channels."""
    try:
        facts = from_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    within = facts.get("pretrained_cfg", facts) if isinstance(facts, Mapping) else {}
    mean, std = (_numbers(within.get(name) if isinstance(within, Mapping) else None) for name in ("mean", "std"))
    return (mean, std) if len(mean) == len(std) == channels else None


def _numbers(value: object) -> tuple[float, ...]:
    """Return the numbers in a list; none for anything else."""
    numbers = value if isinstance(value, list) else []
    return tuple(map(float, numbers)) if all(isinstance(each, int | float) for each in numbers) else ()
