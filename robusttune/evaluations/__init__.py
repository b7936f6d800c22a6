"""Evaluations: `(subject, …) -> list[Record]`, one file each."""

from collections.abc import Iterable
from typing import Protocol

from robusttune.measuring.intervals import Z95, wilson
from robusttune.measuring.record import Record, accuracy, balanced, repeated
from robusttune.measuring.subject import LOSSES, Subject

__all__ = ["LOSSES", "Z95", "Evaluation", "Record", "Subject", "accuracy", "balanced", "repeated", "wilson"]


class Evaluation(Protocol):
    """A measurement of a model on images, by one function for each file of this folder.

    The Subject holds the model, its images and the adversary. The settings of an evaluation are keyword arguments with
    defaults, which users set with `functools.partial`. The result is one Record or several.

    An evaluation that needs a package beyond the core's has an attribute `installed`: a function without arguments that
    imports it, so that `evaluate` raises its ImportError before anything is measured.
    """

    def __call__(self, subject: Subject, /) -> Iterable[Record] | Record: ...
