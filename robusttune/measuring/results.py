"""Results of single evaluations, and their merging into the Records of all evaluations and processes."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from robusttune.measuring.failures import worst
from robusttune.measuring.record import Record, with_plain_numbers
from robusttune.measuring.records import Records
from robusttune.measuring.records_files import FILE
from robusttune.measuring.tally import Tally
from robusttune.run import distributed
from robusttune.run.log import warn

Value = TypeVar("Value")


class Result(NamedTuple):
    """The Records of one evaluation, its Tally, and its duration in seconds."""

    title: str
    records: list[Record]
    tally: Tally
    seconds: float


def costs(results: Sequence[Result], device: torch.device) -> dict[str, dict[str, float]]:
    """Return seconds and images through the model by evaluation; evaluations of one name count together."""
    by_title: dict[str, dict[str, float]] = {}
    for result in results:
        work = distributed.summed([result.tally.work["forward"], result.tally.work["backward"]], device)
        forward, backward = map(round, work)
        total = by_title.setdefault(result.title, {"seconds": 0, "images forward": 0, "images backward": 0})
        total["seconds"] = round(total["seconds"] + round(result.seconds, 3), 3)
        total["images forward"] += forward
        total["images backward"] += backward
    return by_title


def merged(results: Sequence[Result]) -> Records:
    """Merge the Records of all evaluations and processes; answers to single images are sorted by the images' hashes and labels.

    The order matters because a loader that shuffles yields the images in another order to each evaluation. Answers are kept
    of the evaluations of those images that most of the images belong to: `quick` uses few of them.
    """
    parts_of_failures = [part for result in results for part in distributed.gathered(result.tally.failures)]
    answers = [_answers(result) for result in results]
    known = [each for each in answers if any(each.rights)]
    hashes, labels, *_ = max(known, key=lambda each: len(each.hashes), default=_Answers((), (), [], []))
    records: list[Record] = []
    for result, each in zip(results, answers, strict=True):
        kept = each.hashes == hashes
        records += [
            replace(with_plain_numbers(record), right=right if kept else None, answers=answers if kept else None)
            for record, right, answers in zip(result.records, each.rights, each.answers, strict=True)
        ]
    failures = worst(failure for part in parts_of_failures for failure in part)
    return Records(records, hashes=hashes, labels=labels, failures=failures)


class _Answers(NamedTuple):
    """The images of an evaluation in all processes, sorted by hash and label; for each Record which are right, and the answers."""

    hashes: tuple[str, ...]
    labels: tuple[int, ...]
    rights: list[tuple[bool, ...] | None]
    answers: list[tuple[int, ...] | None]


def _answers(result: Result) -> _Answers:
    rights = [record.right for record in result.records]
    answers = [record.answers for record in result.records]
    parts = distributed.gathered((result.tally.hashes, result.tally.labels, rights, answers))
    hashes = [image for part, *_ in parts for image in part]
    labels = [label for _, part, *_ in parts for label in part]
    order = sorted(range(len(hashes)), key=lambda row: (hashes[row], labels[row]))  # an image may occur with two labels
    return _Answers(
        tuple(hashes[row] for row in order),
        tuple(labels[row] for row in order),
        _in_order(rights, [part for _, _, part, _ in parts], order),
        _in_order(answers, [part for *_, part in parts], order),
    )


def _in_order(
    own: Sequence[tuple[Value, ...] | None], parts: Sequence[Sequence[tuple[Value, ...] | None]], order: Sequence[int]
) -> list[tuple[Value, ...] | None]:
    """Join what each process has of single images, for each Record, in the order of all images; None if there is none."""
    joined = [
        None if mine is None else [value for part in parts for value in part[index] or ()]
        for index, mine in enumerate(own)
    ]
    return [None if each is None else tuple(each[row] for row in order) for each in joined]


def save_somewhere(records: Records, path: Path, progress: bool) -> None:
    """Save Records; where that fails, save them in another folder, and say so: what was measured must not be lost."""
    try:
        records.save(path)
    except OSError as error:
        try:
            other = records.save(Path(tempfile.mkdtemp(prefix="robusttune-")) / FILE)
            kept = f"are in {str(other)!r}"
        except OSError:
            kept = "are nowhere on disk: save what evaluate returns"
        warn(
            f"the Records were measured, but {path.parent} does not take them ({error.strerror}): they {kept}", progress
        )
