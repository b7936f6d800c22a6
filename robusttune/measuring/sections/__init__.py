"""Sections of a report, one file each: a function `(runs, folder) -> Markdown`, see `Section`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from robusttune.measuring.agreement import caveat, measured_word, reworded, whose
from robusttune.measuring.record import ANSWERED, Record, described, named, percent
from robusttune.measuring.records import Records
from robusttune.run.markdown import markdown_table
from robusttune.run.settings import shown_radius

__all__ = [
    "ANSWERED",
    "Record",
    "Records",
    "Section",
    "caveat",
    "described",
    "markdown_table",
    "measured_word",
    "named",
    "percent",
    "reworded",
    "shown_radius",
    "whose",
]


class Section(Protocol):
    """The contract of a file in `measuring/sections/`: a function that writes a section of a report."""

    def __call__(self, runs: Mapping[str, Records], folder: Path, /) -> str:
        """Return the section in Markdown without a heading; "" leaves it out.

        Args:
            runs: the Records of each model by the model's name, in the order in which the user passed them.
            folder: the report's folder, for pictures; Markdown refers to them without a path.
        """
