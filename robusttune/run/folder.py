"""The folder of a run: its files, and the checks before a run is resumed in it."""

import json
import logging
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import IterableDataset

from robusttune.run import distributed
from robusttune.run.about import arguments_in, check_same_names, read_facts, read_run
from robusttune.run.fields import OF_RUN, wrong_facts
from robusttune.run.files import HEADS, LAST, MODEL, RUN, STATE, save_weights
from robusttune.run.lock import FILE as LOCK
from robusttune.run.lock import locked
from robusttune.run.manifest import FILE as MANIFEST
from robusttune.run.manifest import warn_if_changed, weights_of_others, write_manifest
from robusttune.run.settings import check_settings, shown_radius
from robusttune.run.termination import Terminated
from robusttune.run.writing import write_bytes, write_text
from robusttune.types import Json, Loader, PathLike, plain_number

ROOM, LEAST_ROOM, MIB = ".room", 2**20, 2**20  # to test a folder, a file of this many bytes is written and removed
SHOWN = 60  # characters of an argument in an error
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
# Arguments that may differ between a run and the run that resumes it.
FREE = {
    "model",
    "loader",
    "images",
    "val_loader",
    "unlabeled_loader",
    "resume",
    "device",
    "progress",
    "log",
    "on_epoch",
    "out",
    "notes",
}
# Arguments that earlier versions did not have, with the values that describe what those versions did.
ADDED: dict[str, Json] = {
    "update_batch": "auto",
    "pretrain_epochs": 0,
    "finetune": 0,
    "teacher": "self",
    "unlabeled_share": None,
    "drop_foreign": False,
}
logger = logging.getLogger("robusttune")


@contextmanager
def prepared(
    out: PathLike | None, resume: bool, *, beside: Collection[str] = (), trains: bool = False
) -> Iterator[Path | None]:
    """Yield the folder of a run, created if needed and locked against other runs inside this context; None without `out`.

    Of several processes, the first one holds the lock.

    Args:
        out, resume: see `harden`.
        beside: folders that may be inside already.
        trains: the run writes weights.

    Raises:
        ValueError: the folder is not empty and `resume` is False, or holds weights of no run; `resume` is True without `out`;
            `out` is a file; the folder cannot be created or written to, or another run is using it.
    """
    if out is None:
        if resume:
            raise ValueError("resume=True needs out=, the folder of the run to resume")
        yield None
        return
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out={str(out)!r} is a file, but a folder is needed")
    with ExitStack() as until_the_end:
        # The first process alone looks and writes, so that the others do not take its files for those of another run.
        others = [f"out={why}: name another folder" for why in weights_of_others(folder) if trains]
        problems = [] if distributed.rank() else others or _taken(folder, resume, beside, until_the_end)
        problems = [each for part in distributed.gathered(problems) for each in part]
        if problems:
            raise ValueError(problems[0])
        yield folder


def _taken(folder: Path, resume: bool, beside: Collection[str], until_the_end: ExitStack) -> list[str]:
    """Create and lock a folder; return what is in the way, as all processes have to know of it."""
    full = [f"out={str(folder)!r} is not empty: pass resume=True to resume the run in it, or name another folder"]
    if not resume and _holds_files(folder, beside):
        return full
    try:
        folder.mkdir(parents=True, exist_ok=True)
        until_the_end.enter_context(locked(folder))
    except OSError as error:
        return [f"out={str(folder)!r} cannot be created ({error.strerror}): name a folder that can be written to"]
    except ValueError as error:
        return [f"out={error}"]
    try:
        write_bytes(folder / ROOM, bytes(LEAST_ROOM))
        (folder / ROOM).unlink()
    except OSError as error:
        why = os.strerror(error.errno or 0)
        return [
            f"out={str(folder)!r} cannot be written to ({why}): make room, or name another folder; nothing was begun"
        ]
    # Again: another run may have been there until now.
    return full if not resume and _holds_files(folder, beside) else []


def check_room(folder: Path, needed: int) -> None:
    """Raise a ValueError, in every process, if the disk of the folder in process 0 has too little room for the run.

    Args:
        folder: the folder of the run.
        needed: bytes that it will write at least.
    """
    free = distributed.gathered(0 if distributed.rank() else shutil.disk_usage(folder).free)[0]
    if free < needed and shutil.disk_usage(folder).total:  # some mounts do not tell
        raise ValueError(
            f"{str(folder)!r} has room for {free / MIB:,.0f} MiB, but a checkpoint and the weights of this run take at least "
            f"{needed / MIB:,.0f} MiB: make room, or name a folder on another disk"
        )


def _holds_files(folder: Path, beside: Collection[str]) -> bool:
    free = {*beside, LOCK, ROOM, f"{ROOM}.part"}
    return folder.exists() and any(entry.name not in free for entry in folder.iterdir())


def inexact(loader: object) -> list[str]:
    """List reasons why a loader cannot yield the same images again after its random states are restored; [] if it can."""
    if getattr(loader, "persistent_workers", False) and getattr(loader, "num_workers", 0):
        return ["its workers are persistent, so their random transforms start from new seeds"]
    if isinstance(getattr(loader, "dataset", None), IterableDataset):
        return ["its data set is iterable, so the order of its images may differ"]
    return [why for each in getattr(loader, "loaders", ()) for why in inexact(each)]


def warn_if_inexact(loader: Loader | None) -> None:
    """Log a warning if a resumed run cannot load exactly the images that the run would have loaded without the break."""
    for why in inexact(loader):
        logger.warning("the run goes on, but not exactly as it would have without the break: %s", why)


def save_outputs(folder: Path, best: Mapping[str, Tensor], last: Mapping[str, Tensor]) -> None:
    """Write the best and last weights of a RobustLoss: its model's, under the names in the user's model, and its best heads.

    The metadata of the model's files holds what the folder's `run.json` says about the model.
    """
    run = read_run(folder)
    for path, weights in ((folder / MODEL, best), (folder / LAST, last)):
        save_weights(path, _under("model.", weights), None if run is None else run.metadata)
    heads = _under("heads.", best)
    if heads:
        save_weights(folder / HEADS, heads)
    else:
        (folder / HEADS).unlink(missing_ok=True)  # of the weights before, where a finished run goes on
    write_manifest(folder)


def _under(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


@contextmanager
def noted_on_failure(folder: Path | None) -> Iterator[None]:
    """Add a note to any exception inside this context, Ctrl-C included, that the run in the folder can be resumed.

    A ValueError before the run has written a checkpoint gets no note: its message says what to do. After a SIGTERM without a
    folder, an error is logged, because the process ends and its weights are lost.
    """
    before = _written(folder)
    try:
        yield
    except BaseException as error:
        refused = isinstance(error, ValueError) and _written(folder) == before
        if folder is not None and (folder / STATE).exists() and not refused:
            note = f"the run stopped; its checkpoints are kept in {str(folder)!r}: pass resume=True to resume it"
            logger.error(note)
            if hasattr(error, "add_note"):
                error.add_note(note)
        if folder is None and isinstance(error, Terminated):
            logger.error("the run was stopped by SIGTERM, and nothing of it is kept: with out= it could be resumed")
        raise


def _written(folder: Path | None) -> int | None:
    """Return when the last checkpoint was written, in nanoseconds; None if there is none."""
    state = None if folder is None else folder / STATE
    return state.stat().st_mtime_ns if state is not None and state.exists() else None


def with_notes(facts: Mapping[str, Any], notes: Mapping[str, Json] | None) -> dict[str, Any]:
    """Add a user's notes to the facts for `run.json`.

    Raises:
        ValueError: the notes are no dict, or have a key that the facts have already, or that is read as a fact of another kind.
    """
    check_settings({"notes": notes})
    clash = facts.keys() & (notes or {}).keys() | set(wrong_facts(notes or {}, OF_RUN))
    if clash:
        raise ValueError(f"notes= may not hold {', '.join(sorted(clash))}, which {RUN} has itself: use other names")
    return {**facts, **(notes or {})}


def write_run(folder: Path, facts: Mapping[str, object]) -> None:
    """Write `run.json`: the arguments of a run, its data and the versions of packages."""
    write_text(folder / RUN, json.dumps(_plain(facts), indent=1) + "\n")
    if (folder / MANIFEST).exists():
        write_manifest(folder)


def is_plain(value: object) -> bool:
    """Return True if `run.json` holds a value in full; of other objects it holds a text alone."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and is_plain(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, str | bool | int | float | Path)


def as_json(values: object) -> Any:
    """Return values as they are read back from a JSON file, with objects as words that are the same in every process."""
    return json.loads(json.dumps(_plain(values)))


def _plain(facts: object) -> object:
    """Convert facts for JSON; objects become texts without memory addresses, so that every process writes the same."""
    if isinstance(facts, Mapping):
        return {_plain(key) if not isinstance(key, str) else key: _plain(value) for key, value in facts.items()}
    if isinstance(facts, list | tuple):
        return [_plain(fact) for fact in facts]
    facts = plain_number(facts)
    plain = facts is None or isinstance(facts, str | bool | int | float)
    return facts if plain else ADDRESS.sub("", str(facts))


def changed_arguments(folder: Path, facts: Mapping[str, object]) -> dict[str, tuple[Any, Any]]:
    """Return the arguments in these facts that the run in the folder has otherwise: before and now, by name.

    Raises:
        ValueError: `run.json` cannot be read, or the names of the classes differ.
    """
    path = folder / RUN
    if not path.exists():
        return {}
    warn_if_changed(folder)
    earlier = read_facts(path)
    before = arguments_in(earlier)
    check_same_names(_names_in(earlier), _names_in(facts), folder)
    if earlier.get("teacher") != as_json(facts.get("teacher")):
        raise ValueError(
            f"the teacher of the run in {str(folder)!r} was another one, or has other weights now: pass the same teacher=, and, "
            "where it is 'self', the model with the weights that it had at the start of that run"
        )
    now, added = as_json(facts["arguments"]), added_arguments(earlier)
    pairs = {key: (before.get(key, added.get(key)), now.get(key, added.get(key))) for key in {**before, **now}}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def added_arguments(facts: Mapping[str, Any]) -> dict[str, Json]:
    """Return arguments that an earlier version did not have, with the values that describe what it did."""
    # Images without labels joined the pretext losses alone, before there was a teacher.
    alone = "unlabeled_loader" in facts.get("loaders", ()) and "teacher" not in facts["arguments"]
    return {**ADDED, "teacher": None} if alone else dict(ADDED)


def other_arguments(folder: Path, changed: Mapping[str, tuple[Any, Any]], why: str = "") -> ValueError:
    """Return the error for a run that is resumed with other arguments: each with its value before and now.

    Args:
        folder: the folder of the run.
        changed: the arguments that differ, before and now.
        why: a reason why they may not differ.
    """
    shown = ", ".join(f"{name} was {_cut(before)} and is {_cut(now)}" for name, (before, now) in changed.items())
    return ValueError(
        f"{str(folder)!r} holds a run with other arguments ({shown}){why and '; '}{why}: pass the same ones to resume it, "
        "another out= to start afresh, or init_from= to start from its weights"
    )


def _cut(value: object) -> str:
    text = shown_radius(value) if isinstance(value, float) else str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _names_in(facts: Mapping[str, object]) -> list[str] | None:
    """Return the names of classes in the facts of `run.json`; None if it does not have them."""
    about = facts.get("about")
    names = about.get("classes") if isinstance(about, Mapping) else None
    return names if isinstance(names, list) else None
