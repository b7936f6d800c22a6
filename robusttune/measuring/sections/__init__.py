"""Sections of a report, one file each: a function `(runs, folder) -> Markdown`, see `Section`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from robusttune.measuring.records import Records

__all__ = ["Section"]


class Section(Protocol):
    """The contract of a file in `measuring/sections/`: a function that writes a section of a report."""

    def __call__(self, runs: Mapping[str, Records], folder: Path, /) -> str:
        """Return the section in Markdown, "" to leave it out.

        Args:
            runs: the records of each model, by its name.
            folder: the folder of the report, for pictures.
        """
