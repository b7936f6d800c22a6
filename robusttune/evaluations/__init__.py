"""Evaluations of a model on images, one file each: a function `(subject, …) -> list[Record]`, see `Evaluation`."""

from collections.abc import Iterable
from typing import Protocol

from robusttune.measuring.intervals import Z95, wilson
from robusttune.measuring.losses import LOSSES, LossName
from robusttune.measuring.passes import Passes, attack_passes, attacks_at, checked_by, takes
from robusttune.measuring.record import Record, accuracy, balanced, hits, named, repeated
from robusttune.measuring.subject import Subject
from robusttune.measuring.tally import Tally

__all__ = [
    "LOSSES",
    "Z95",
    "Evaluation",
    "LossName",
    "Passes",
    "Record",
    "Subject",
    "Tally",
    "accuracy",
    "attack_passes",
    "attacks_at",
    "balanced",
    "checked_by",
    "hits",
    "named",
    "repeated",
    "takes",
    "wilson",
]


class Evaluation(Protocol):
    """The contract of a file in `evaluations/`: a function that measures a model on images.

    Settings are keyword arguments with defaults; users change them with `functools.partial`. Four decorators are for long
    evaluations: `plugins.requires` imports a package beyond the core's before anything is measured; `checked_by` checks heads,
    settings and files just as early; `takes` states the passes through the model for each image, for the progress bar and for
    `estimate`; `attacks_at` states the adversaries of an evaluation that attacks, so that a gate refuses a radius that will not
    be measured.
    """

    def __call__(self, subject: Subject, /) -> Iterable[Record] | Record:
        """Return the measured numbers, each with its setting and interval.

        Args:
            subject: the model, its images and the adversary.
        """
