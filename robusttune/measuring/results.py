"""Results of single evaluations, and their merging into the Records of all evaluations and processes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from robusttune.measuring.failures import worst
from robusttune.measuring.record import Record
from robusttune.measuring.records import Records
from robusttune.measuring.tally import Tally
from robusttune.run import distributed


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
    """Merge the Records of all evaluations and processes; answers to single images are sorted by the images' hashes.

    The order matters because a loader that shuffles yields the images in another order to each evaluation.
    """
    parts_of_failures = [part for result in results for part in distributed.gathered(result.tally.failures)]
    records = Records(failures=worst(failure for part in parts_of_failures for failure in part))
    for result in results:
        rights = [record.right for record in result.records]
        parts = distributed.gathered((result.tally.hashes, rights, result.tally.labels))
        hashes = [image for part, _, _ in parts for image in part]
        order = sorted(range(len(hashes)), key=lambda row: hashes[row])
        ordered = tuple(hashes[row] for row in order)
        if not records.hashes and any(right is not None for right in rights):
            labels = [label for _, _, part in parts for label in part]
            records.hashes, records.labels = ordered, tuple(labels[row] for row in order)
        for index, record in enumerate(result.records):
            right = None
            if record.right is not None and ordered == records.hashes:
                single = [answer for _, part, _ in parts for answer in part[index]]
                right = tuple(single[row] for row in order)
            records.append(replace(record, right=right))
    return records
