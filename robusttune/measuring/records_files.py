"""The files of Records: numbers, answers to single images and pictures, and the checksums that tell whether they belong together."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from robusttune.run.about import RUN
from robusttune.run.files import MODEL, digest_of_weights
from robusttune.run.provenance import digest

FILE = "records.jsonl"
CHECKSUMS = "checksums"  # in the first line of the numbers

logger = logging.getLogger("robusttune")


def number_of(value: float | None) -> float:
    """Return a number as it was before `save`; NaN for null, which stands for it, as in JSON there is none."""
    return math.nan if value is None else value


def numbers_checksum(facts: object, rows: Sequence[object]) -> str:
    """Hash facts and numbers as they are read back from JSON."""
    return digest([json.dumps(json.loads(json.dumps([facts, *rows])), sort_keys=True).encode()])


def kind_of(path: Path) -> str:
    """Return the word for a file beside Records in their checksums: "images" or "failures"."""
    return path.name.split(".")[-2]


def read_beside(path: Path, sums: Mapping[str, str] | None) -> bytes | None:
    """Read a file beside Records; None, with a warning if it should be there, if it is missing, damaged or of other Records.

    Args:
        path: the path of the file.
        sums: checksums of the Records; None for those of a version without.
    """
    content = path.read_bytes() if path.exists() else None
    if sums is None:
        return content
    wanted = sums.get(kind_of(path))
    if content is None and wanted is None:
        return None
    if content is not None and wanted == digest([content]):
        return content
    why = "is missing" if content is None else "is damaged, or of other Records"
    logger.warning("%s %s: it is left out, and the numbers are read without it", path, why)
    return None


def answers_path(path: Path) -> Path:
    """Return the path of the answers to single images, beside the numbers."""
    return path.with_name(path.stem + ".images.json")


def failures_path(path: Path) -> Path:
    """Return the path of the pictures of failures, beside the numbers."""
    return path.with_name(path.stem + ".failures.npz")


def file_at(place: Path) -> Path:
    """Find the file of Records at a path: itself, the one in a folder, or the one in a folder inside it.

    Raises:
        ValueError: there is none, or several.
    """
    if not place.exists():
        raise ValueError(f"{str(place)!r} is not there: pass the folder that evaluate wrote to, or the {FILE} in it")
    if not place.is_dir() or (place / FILE).exists():
        return place / FILE if place.is_dir() else place
    inside = sorted(place.glob(f"*/{FILE}"))
    if len(inside) == 1:
        return inside[0]
    if inside:
        folders = ", ".join(str(file.parent) for file in inside)
        raise ValueError(f"{str(place)!r} holds {len(inside)} evaluations: pass one of {folders}")
    first = f"evaluate it first with out={str(place / 'evaluation')!r}"
    again = "to go on with an evaluation that was interrupted there, evaluate again as before, with resume"
    of_runs = (place / RUN).exists() or any(each.is_dir() for each in place.iterdir())
    raise ValueError(
        f"{str(place)!r} holds no {FILE}: {first if of_runs else again}; or pass the folder that evaluate wrote to"
    )


def check_weights(facts: Mapping[str, object], run: Path, evaluation: Path) -> None:
    """Raise a ValueError if the evaluation inside a run's folder is of other weights than the folder holds now."""
    measured = facts.get("run")
    if isinstance(measured, Mapping) and (run / MODEL).exists() and measured["weights"] != digest_of_weights(run):
        raise ValueError(
            f"the evaluation in {str(evaluation)!r} is of other weights than {str(run)!r} holds now: evaluate it again, or pass "
            f"{str(evaluation)!r} itself"
        )
