"""The repetition of a run from its folder, and the comparison of both."""

import copy
import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from robusttune.data.class_names import class_names
from robusttune.model.devices import chosen_device
from robusttune.model.saved import start_model
from robusttune.run import files
from robusttune.run import folder as run_folder
from robusttune.run.about import arguments_in, check_same_names, read_facts, read_run
from robusttune.run.log import FILE
from robusttune.run.manifest import warn_if_changed
from robusttune.run.markdown import as_text, markdown_table
from robusttune.run.settings import NOT_NEGATIVE, check_number, check_settings
from robusttune.training.harden import harden
from robusttune.training.pretrain import pretrain
from robusttune.types import DeviceLike, Loader, PathLike, check_path, from_json

RUNS = {"harden": harden, "pretrain": pretrain}
WEIGHTS = (files.MODEL, files.LAST, files.HEADS)
TIMED = ("seconds",)  # differs between any two runs


@dataclass(frozen=True)
class Replay:
    """A run and its repetition.

    Attributes:
        same: whether all weights agree bit for bit.
        close: whether the logs of all epochs agree within the tolerance.
        weights: by file, the largest difference between two weights; infinite if names or shapes differ.
        records: by entry of the log, the largest difference over the epochs.
        differences: in words, what differs between the runs: versions, device, data, weights at the start.
        tolerance: the largest difference of numbers in the log that counts as close, as a share of them or of 1.
    """

    same: bool
    close: bool
    weights: Mapping[str, float]
    records: Mapping[str, float]
    differences: tuple[str, ...]
    tolerance: float

    def table(self) -> str:
        """Format the result as a Markdown table."""
        verdict = (
            "the same weights, bit for bit"
            if self.same
            else f"the same within {self.tolerance:g}"
            if self.close
            else "no"
        )
        rows = [("repeated", verdict)]
        rows += [
            (as_text(name), "the same" if not far else f"up to {far:.3g} apart") for name, far in self.weights.items()
        ]
        rows += [(f"log: {as_text(name)}", f"up to {far:.3g} apart") for name, far in self.records.items() if far]
        rows += [("differs", as_text(difference)) for difference in self.differences]
        return markdown_table(["what", "result"], rows)

    def __str__(self) -> str:
        return self.table()

    def _repr_markdown_(self) -> str:
        return self.table()


def replay(
    run: PathLike,
    model: nn.Module | None = None,
    loader: Loader | None = None,
    *,
    out: PathLike | None = None,
    tolerance: float = 0.02,
    progress: bool = False,
    **again: object,
) -> Replay:
    """Repeat a run of `harden` or `pretrain` from its folder's `run.json`, and compare the results.

    On the CPU, with the same versions and threads, weights agree bit for bit. A copy of the model is trained; the model is not changed.

    Args:
        run: the folder that the run wrote to.
        model: the model with its weights at the start of the run; None to build it by its name, for a run that was begun on
            the command line.
        loader: the images of the run, in the same order or with the same sampler; required.
        out: a folder for the repetition; None for a temporary one.
        tolerance: the largest difference of numbers in the log that counts as close, as a share of them or of 1.
        progress: show a progress bar.
        again: the same objects again, for arguments of the run that were objects, such as `val_loader` or an attack of yours;
            and `device`, to use another device.

    Raises:
        ValueError: the folder holds no such run, the model or an object is missing, or the data set names other classes.

    Example:
        >>> import torch
        >>> import robusttune
        >>> model, batches = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), [(torch.rand(8, 1, 8, 8), torch.arange(8))]
        >>> first = copy.deepcopy(model)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = robusttune.harden(model, batches, epochs=1, tasks=None, out=folder, progress=False)
        ...     replay(folder, first, batches).same
        True
    """
    folder = check_path("run", run)
    check_settings({"out": out, "progress": progress})
    check_number("tolerance", tolerance, NOT_NEGATIVE)
    facts = run_facts_of(folder)
    warn_if_changed(folder)
    if loader is None:
        raise ValueError(f"loader= is missing: pass the images that the run in {str(folder)!r} was trained on")
    if facts.get("continued"):
        after = facts["continued"][0]["after"]["steps"]
        raise ValueError(
            f"the run in {str(folder)!r} was continued when it had finished after {after} steps, so no single run repeats it: "
            "replay needs a run that was not continued"
        )
    check_same_names((facts.get("about") or {}).get("classes"), class_names(loader), folder)
    arguments, before = _arguments(facts, again, folder), _log(folder)
    model = _started(folder) if model is None else model
    device = again.get("device") or _same_device(model, str(facts["device"]))
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "replay" if out is None else Path(out)
        repeat: Any = RUNS[facts["run"]]
        repeat(
            copy.deepcopy(model), loader, **{**arguments, **again, "out": place, "device": device, "progress": progress}
        )
        return _compared(folder, place, facts, before, tolerance)


def _started(folder: Path) -> nn.Module:
    """Make the model of a run as it was at the run's start, by its name."""
    run = read_run(folder)
    assert run is not None  # its facts have been read
    return start_model(run)


def run_facts_of(folder: Path) -> dict[str, Any]:
    """Read the `run.json` of a run that has ended an epoch.

    Raises:
        ValueError: there is none, it cannot be read, or it is of another version.
    """
    path = folder / files.RUN
    if not path.is_file():
        raise ValueError(
            f"{str(folder)!r} holds no {files.RUN} that can be read: pass the folder that was out= of harden"
        )
    facts = read_facts(path)
    names = ("run", "arguments", "objects", "loaders", "data", "start", "device", "threads", "versions")
    missing = [name for name in names if facts.get(name) is None]
    missing += [] if "seed" in (facts.get("arguments") or {}) else ["seed"]
    if missing or facts["run"] not in RUNS:
        raise ValueError(
            f"{files.RUN} in {str(folder)!r} does not say {', '.join(sorted(missing)) or 'a known run'}: it is of "
            "another version of robusttune"
        )
    if not (folder / files.LAST).exists():
        raise ValueError(f"the run in {str(folder)!r} has not ended an epoch, so there is nothing to compare with")
    return facts


def _arguments(facts: Mapping[str, Any], again: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the arguments of the run that `run.json` holds; the others must be passed again."""
    needed = [name for name in [*facts["objects"], *facts["loaders"]] if name not in again]
    if needed:
        shown = ", ".join(f"{name} ({facts['arguments'].get(name, 'a loader')})" for name in needed)
        raise ValueError(
            f"the run in {str(folder)!r} had arguments that {files.RUN} cannot hold: pass the same objects again: "
            f"{shown}"
        )
    strange = [name for name in again if name in facts["arguments"] and name not in facts["objects"]]
    if strange:
        raise ValueError(
            f"{', '.join(strange)} of the run in {str(folder)!r} would differ from that run: leave it out, or call "
            f"{facts['run']} itself"
        )
    arguments = {name: value for name, value in arguments_in(facts).items() if name not in facts["objects"]}
    return arguments if run_folder.added_arguments(facts)["teacher"] is not None else {**arguments, "teacher": None}


def _same_device(model: nn.Module, device: str) -> DeviceLike:
    try:
        return chosen_device(model, device)
    except ValueError:  # it is not available; reported as a difference
        return "auto"


def _compared(
    first: Path, second: Path, facts: Mapping[str, Any], before: Sequence[Mapping[str, object]], tolerance: float
) -> Replay:
    """Compare a run with its repetition, given the facts and the log of the run."""
    now, after = run_facts_of(second), _log(second)
    weights = {name: _largest_difference(first / name, second / name) for name in WEIGHTS if (first / name).exists()}
    differences = _differences(facts, now)
    if len(before) != len(after):
        differences.append(f"the run has {len(before)} epochs, its repetition {len(after)}")
    if facts["arguments"].get("time_budget") is not None:
        differences.append("time_budget ends this run, and the number of steps in this time varies")
    records: dict[str, float] = {}
    for one, other in zip(before, after, strict=False):
        for name in one:
            if name not in TIMED:
                records[name] = max(records.get(name, 0.0), _relative_difference(one[name], other.get(name)))
    same = all(far == 0 for far in weights.values())
    close = len(before) == len(after) and all(far <= tolerance for far in records.values())
    return Replay(same, close, weights, records, tuple(differences), tolerance)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe what differs between two runs."""
    differences = []
    for name in sorted({*before["versions"], *now["versions"]}):
        old, new = before["versions"].get(name, "none"), now["versions"].get(name, "none")
        if old != new:
            differences.append(f"{name} was {old} and is {new}")
    words = {"device": "the device", "threads": "the number of threads"}
    differences += [f"{words[key]} was {before[key]} and is {now[key]}" for key in words if before[key] != now[key]]
    if before["start"] != now["start"]:
        differences.append("the model began with other weights")
    data = {key for key in before["data"] if before["data"][key] != now["data"].get(key)}
    for key in sorted(data - {"first"}):
        differences.append(f"the data's {key} was {before['data'][key]} and is {now['data'].get(key)}")
    if "first" in data:
        differences.append("the first batch holds other images or labels")
    return differences


def _largest_difference(first: Path, second: Path) -> float:
    """Return the largest difference between two weights of the same name."""
    if not second.exists():
        return math.inf
    one, other = files.load_weights(first), files.load_weights(second)
    if one.keys() != other.keys() or any(one[name].shape != other[name].shape for name in one):
        return math.inf
    return max((_distance(one[name], other[name]) for name in one if one[name].numel()), default=0.0)


def _distance(one: Tensor, other: Tensor) -> float:
    """Return the largest difference of two tensors; infinite if values differ by no number, as one and NaN."""
    same, far = (one == other) | (one.isnan() & other.isnan()), (one.double() - other.double()).abs()
    return float(far.where(far > 0, math.inf).masked_fill(same, 0).max())


def _log(folder: Path) -> list[Mapping[str, object]]:
    """Read the facts of each epoch of a run.

    Raises:
        ValueError: a line is damaged.
    """
    path = folder / FILE
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return [_line(path, number, line) for number, line in enumerate(lines, 1)]


def _line(path: Path, number: int, line: str) -> Mapping[str, object]:
    try:
        facts = from_json(line)
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise ValueError(
            f"line {number} of {str(path)!r} is no JSON object, so this epoch cannot be compared: restore it from a copy"
        )
    return facts


def _relative_difference(one: object, other: object) -> float:
    if one == other or str(one) == str(other) == "nan":
        return 0.0
    if not isinstance(one, int | float) or not isinstance(other, int | float):
        return math.inf
    try:
        far = abs(one - other) / max(1.0, abs(one))
    except OverflowError:  # a whole number beyond those of floats
        return math.inf
    return math.inf if math.isnan(far) else far
