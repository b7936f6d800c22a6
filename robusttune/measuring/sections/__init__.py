"""Sections of a report: `(runs, folder) -> Markdown`, one file each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from robusttune.measuring.record import Record, described, percent
from robusttune.measuring.records import Records
from robusttune.run.markdown import markdown_table

__all__ = ["Record", "Records", "Section", "described", "markdown_table", "percent"]


class Section(Protocol):
    """A part of a report's page, by one function for each file of this folder.

    Args:
        runs: the Records of each model by the model's name, in the order in which the user passed them.
        folder: the report's folder, for pictures; Markdown refers to them without a path.

    Returns:
        Markdown without a heading; the empty string leaves the section out.
    """

    def __call__(self, runs: Mapping[str, Records], folder: Path, /) -> str: ...
