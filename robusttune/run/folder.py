"""The folder of a run: its files, and the checks before a run is resumed in it."""

import json
import logging
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import IterableDataset

from robusttune.run.about import arguments_in, check_same_names, read_run
from robusttune.run.files import HEADS, LAST, MODEL, RUN, STATE, save_weights, unusable, write_text
from robusttune.run.settings import check_settings, shown_radius
from robusttune.types import Json, Loader, PathLike

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
# Arguments that earlier versions did not have, and the value that stands for what those did.
ADDED: dict[str, Json] = {
    "update_batch": "auto",
    "pretrain_epochs": 0,
    "finetune": 0,
    "teacher": "self",
    "unlabeled_share": None,
    "drop_foreign": False,
}
logger = logging.getLogger("robusttune")


def prepared(out: PathLike | None, resume: bool, *, beside: Collection[str] = ()) -> Path | None:
    """Return the folder of a run, and create it if needed; None without `out`.

    Args:
        out, resume: see `harden`.
        beside: folders that may be inside already.

    Raises:
        ValueError: the folder is not empty and `resume` is False, `resume` is True without `out`, `out` is a file, or the
            folder cannot be created.
    """
    if out is None:
        if resume:
            raise ValueError("resume=True needs out=, the folder of the run to resume")
        return None
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out={str(out)!r} is a file, but a folder is needed")
    if folder.exists() and any(entry.name not in beside for entry in folder.iterdir()) and not resume:
        raise ValueError(
            f"out={str(out)!r} is not empty: pass resume=True to resume the run in it, or name another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"out={str(out)!r} cannot be created ({error.strerror}): name a folder that can be written to"
        ) from error
    return folder


def warn_if_inexact(loader: Loader | None) -> None:
    """Log a warning if a resumed run cannot load exactly the images that the run would have loaded without the break."""
    for each in getattr(loader, "loaders", ()):
        warn_if_inexact(each)
    why = ""
    if getattr(loader, "persistent_workers", False) and getattr(loader, "num_workers", 0):
        why = "its workers are persistent, so their random transforms start from new seeds"
    elif isinstance(getattr(loader, "dataset", None), IterableDataset):
        why = "its data set is iterable, so the order of its images may differ"
    if why:
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


def _under(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


@contextmanager
def noted_on_failure(folder: Path | None) -> Iterator[None]:
    """Add to any exception inside this context, Ctrl-C too, that the run in the folder can be resumed.

    A ValueError before the run has written a checkpoint is a refusal, which says what to do.
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
        raise


def _written(folder: Path | None) -> int | None:
    """Return when the last checkpoint was written, in nanoseconds; None where there is none."""
    state = None if folder is None else folder / STATE
    return state.stat().st_mtime_ns if state is not None and state.exists() else None


def with_notes(facts: Mapping[str, Any], notes: Mapping[str, Json] | None) -> dict[str, Any]:
    """Add a user's notes to the facts for `run.json`.

    Raises:
        ValueError: the notes are no dict, or have a key that the facts have already.
    """
    check_settings({"notes": notes})
    clash = facts.keys() & (notes or {}).keys()
    if clash:
        raise ValueError(f"notes= may not hold {', '.join(sorted(clash))}, which {RUN} has already: use other names")
    return {**facts, **(notes or {})}


def write_run(folder: Path, facts: Mapping[str, object]) -> None:
    """Write `run.json`: the arguments of a run, its data and the versions of packages."""
    write_text(folder / RUN, json.dumps(_plain(facts), indent=1) + "\n")


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
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        before = arguments_in(earlier)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(unusable(path, "cannot be read")) from error
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
    """Return the arguments that a run of before did not have, with the values that it worked with."""
    # Images without labels joined the pretext losses alone, before there was a teacher.
    alone = "unlabeled_loader" in facts.get("loaders", ()) and "teacher" not in facts["arguments"]
    return {**ADDED, "teacher": None} if alone else dict(ADDED)


def other_arguments(folder: Path, changed: Mapping[str, tuple[Any, Any]], why: str = "") -> ValueError:
    """Return the error for a run that is resumed with other arguments: each with its value before and now.

    Args:
        folder: of the run.
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
    """Return the names of classes in the facts of `run.json`; None where it does not have them."""
    about = facts.get("about")
    names = about.get("classes") if isinstance(about, Mapping) else None
    return names if isinstance(names, list) else None
