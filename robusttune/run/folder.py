"""A run's folder: what it holds, and whether a run may go on in it."""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import IterableDataset

from robusttune.run.files import HEADS, LAST, MODEL, RUN, STATE, save_weights, unusable, write_bytes
from robusttune.types import PathLike

ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
# The arguments that a resumed run may be given anew.
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
logger = logging.getLogger("robusttune")


def prepared(out: PathLike | None, resume: bool) -> Path | None:
    """The folder of a run, made if it is not there.

    Raises:
        ValueError: it holds something already and `resume` is not asked for, or it is not a folder.
    """
    if out is None:
        if resume:
            raise ValueError("resume=True needs out=, the folder of the run to go on with")
        return None
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out={str(out)!r} is a file, but a folder is needed")
    if folder.exists() and any(folder.iterdir()) and not resume:
        raise ValueError(
            f"out={str(out)!r} is not empty: pass resume=True to go on with the run in it, or name another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"out={str(out)!r} cannot be made ({error.strerror}): name a folder that can be written to"
        ) from error
    return folder


def warn_if_inexact(loader: Any) -> None:
    """Say so where a resumed run cannot see the images exactly as the one that was killed would have."""
    why = ""
    if getattr(loader, "persistent_workers", False) and getattr(loader, "num_workers", 0):
        why = "its workers are persistent, so their random transforms begin anew"
    elif isinstance(getattr(loader, "dataset", None), IterableDataset):
        why = "its data set is iterable, so its order may be another one"
    if why:
        logger.warning("the run goes on, but not exactly as it would have without the break: %s", why)


def save_outputs(folder: Path, best: Mapping[str, Tensor], last: Mapping[str, Tensor]) -> None:
    """Write the best and the last weights of a RobustLoss: its model's under the user's own names, its heads' apart."""
    for path, weights in ((folder / MODEL, best), (folder / LAST, last)):
        save_weights(path, _under("model.", weights))
    heads = _under("heads.", best)
    if heads:
        save_weights(folder / HEADS, heads)


def _under(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


@contextmanager
def noted_on_failure(folder: Path | None) -> Iterator[None]:
    """On any exception, Ctrl-C too, say that the run in the folder can go on."""
    try:
        yield
    except BaseException as error:
        if folder is not None and (folder / STATE).exists():
            note = f"the run stopped; its checkpoints are kept in {str(folder)!r}: pass resume=True to go on with it"
            logger.error(note)
            if hasattr(error, "add_note"):
                error.add_note(note)
        raise


def write_run(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write `run.json`: what the run was asked to do, with what, on what."""
    write_bytes(folder / RUN, (json.dumps(_plain(facts), indent=1) + "\n").encode())


def is_plain(value: Any) -> bool:
    """Whether `run.json` holds all of a value, so that it can be read back."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and is_plain(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, str | bool | int | float | Path)


def _plain(facts: Any) -> Any:
    """The facts as JSON has them, with objects as words that are the same in every process: without their addresses."""
    if isinstance(facts, Mapping):
        return {_plain(key) if not isinstance(key, str) else key: _plain(value) for key, value in facts.items()}
    if isinstance(facts, list | tuple):
        return [_plain(each) for each in facts]
    plain = facts is None or isinstance(facts, str | bool | int | float)
    return facts if plain else ADDRESS.sub("", str(facts))


def check_same_run(folder: Path, facts: Mapping[str, Any]) -> None:
    """Raise a ValueError where the folder's run was asked for something else than this one."""
    path = folder / RUN
    if not path.exists():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))["arguments"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(unusable(path, "cannot be read")) from error
    now = json.loads(json.dumps(_plain(facts["arguments"])))
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if changed:
        shown = ", ".join(f"{key} was {before.get(key)} and is {now.get(key)}" for key in changed[:3])
        raise ValueError(
            f"{str(folder)!r} holds a run with other arguments ({shown}): pass the same ones to resume it, another out= "
            "to start afresh, or init_from= to start from its weights"
        )
