"""Evaluations of a model on images, one file each: a function `(subject, …) -> Records`, see `Evaluation`."""

from typing import Protocol

from robusttune.measuring.record import Record
from robusttune.measuring.subject import Subject

__all__ = ["Evaluation"]


class Evaluation(Protocol):
    """The contract of a file in `evaluations/`: a function that measures a model on its images.

    Settings are keyword arguments with defaults; users change them with `functools.partial`.
    """

    def __call__(self, subject: Subject, /) -> list[Record]:
        """Return the numbers that were measured, each with its settings."""
