"""Manifest of a run folder: `manifest.json` lists the checksums of the files that were written together."""

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path

from robusttune.run.about import HEADS, LAST, MODEL, RUN, STATE
from robusttune.run.lock import FILE as LOCK
from robusttune.run.seal import checksum_of_weights
from robusttune.run.writing import write_text
from robusttune.types import from_json

FILE = "manifest.json"
FORMAT = 1
PATIENCE, PAUSE = 50, 0.2  # looks at the files of a run that is writing, and seconds between them
WEIGHTS = (MODEL, LAST, HEADS)

logger = logging.getLogger("robusttune")


def write_manifest(folder: Path) -> None:
    """Write the checksums of `run.json` and of the files of weights that the folder holds now."""
    files: dict[str, str | None] = {
        name: checksum_of_weights(folder / name) for name in WEIGHTS if (folder / name).exists()
    }
    if (folder / RUN).exists():
        files[RUN] = _of_bytes(folder / RUN)
    write_text(folder / FILE, json.dumps({"format": FORMAT, "files": files}, indent=1) + "\n")


def check_together(folder: Path, name: str) -> None:
    """Check that a file of weights is the one that was written with the others; a folder without manifest is not checked.

    Args:
        folder: the folder of a run.
        name: the name of the file in it.

    Raises:
        ValueError: it is another one, as after a stop between two files, or the manifest is damaged.
    """
    known, path = _known(folder), folder / name
    for _ in range(PATIENCE):  # a run that goes on writes the files and the manifest within a moment
        if known is None or _fits(known, path) or not (folder / LOCK).exists():
            break
        time.sleep(PAUSE)
        known = _known(folder)
    if known is None:
        return
    if name in known and not path.exists():
        raise ValueError(f"{str(path)!r} is missing, but {FILE} beside it names it: {_advice(folder)}")
    if not _fits(known, path):
        raise ValueError(
            f"{str(path)!r} is not the one that was written together with the other files of {str(folder)!r}: the run was stopped "
            f"in between, is writing just now, or the file was replaced; {_advice(folder)}, or pass {str(path)!r} itself to use it "
            "as it is"
        )


def _fits(known: Mapping[str, str], path: Path) -> bool:
    return checksum_of_weights(path) == known.get(path.name) if path.exists() else path.name not in known


def warn_if_changed(folder: Path) -> None:
    """Log a warning if `run.json` was changed after the run wrote it."""
    known = _known(folder)
    if known is not None and known.get(RUN) not in (None, _of_bytes(folder / RUN)):
        logger.warning(
            "%s was changed after the run wrote it, by hand or by damage: what it says of classes, images and arguments is taken "
            "as it stands",
            folder / RUN,
        )


def _known(folder: Path) -> dict[str, str] | None:
    path = folder / FILE
    if not path.exists():
        return None
    try:
        files: dict[str, str] = from_json(path.read_text(encoding="utf-8"))["files"]
        return dict(files)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{str(path)!r} is damaged: {_advice(folder)}, or remove it if the other files are known to be right"
        ) from error


def _of_bytes(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _advice(folder: Path) -> str:
    return f"call the run again with out={str(folder)!r} and resume=True, which writes all of them anew from its last checkpoint"


def weights_of_others(folder: Path) -> list[str]:
    """Say which weights in a folder no run wrote there, so that a run must not replace them."""
    known = any((folder / name).exists() for name in (RUN, STATE))
    there = [] if known else [name for name in WEIGHTS if (folder / name).exists()]
    return [
        f"{str(folder)!r} holds {name!r}, but no {RUN}, so that no run wrote it, and this one would replace it"
        for name in there
    ]
