"""Reports of Records as a page of Markdown and HTML."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from robusttune import plugins
from robusttune.measuring.agreement import measured_word
from robusttune.measuring.html import page
from robusttune.measuring.records import Records, name_of, records_of, words_as_text
from robusttune.measuring.sections import Section
from robusttune.run.markdown import as_text
from robusttune.run.writing import write_text
from robusttune.types import PathLike, check_path, shown

SECTIONS = ("overview", "sanity", "summary", "curve", "classes", "failures", "corruptions", "cost")


def report(
    runs: Records | PathLike | Mapping[str, Records | PathLike],
    out: PathLike,
    *,
    sections: Sequence[str | Section] = SECTIONS,
) -> Path:
    """Write a report: `report.md` with its pictures beside it, and `report.html`, which holds everything in one file.

    Args:
        runs: the Records of one model (a part of them will do), or of several by name, such as {"before": …, "after": …}.
            Instead of Records, what `Records.load` reads: a file, a folder that `evaluate` wrote to, or that of a run.
        out: a folder, created if it does not exist.
        sections: names out of `robusttune.measuring.sections`, or functions `(runs, folder) -> Markdown`.

    Returns:
        The path of `report.md`.

    Raises:
        ValueError: there is no Record, an unknown section, or some Records hold agreement and others accuracy.
        ImportError: a section needs a package that is not installed.
    """
    folder = check_path("out", out)
    if isinstance(sections, str) or not isinstance(sections, Sequence):
        raise ValueError(f"sections is {shown(sections)}, but a list is needed, such as {list(SECTIONS[:2])}")
    models = dict(runs) if isinstance(runs, Mapping) else {_name(runs): runs}
    named = {str(name): records_of(records) for name, records in models.items()}
    if not any(named.values()):
        raise ValueError("there are no Records to report: pass what evaluate returned")
    measured_word(named.values())  # refuses accuracy beside agreement
    named = {as_text(name): words_as_text(records) for name, records in named.items()}
    chosen: list[tuple[str, Section]] = [
        (_title(section), plugins.find("measuring.sections", section)) for section in sections
    ]
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out is {str(folder)!r}, which is a file: name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    parts = [f"## {title}\n\n{text}" for title, section in chosen if (text := section(named, folder))]
    markdown = "# Robustness report\n\n" + "\n\n".join(parts) + "\n"
    html = page(markdown, folder)
    path = folder / "report.md"
    write_text(path, markdown)
    write_text(folder / "report.html", html)
    return path


def _name(records: Records | PathLike) -> str:
    return name_of(records) if isinstance(records, str | os.PathLike) else "model"


def _title(section: str | Section) -> str:
    name = section if isinstance(section, str) else getattr(section, "__name__", type(section).__name__)
    return name.replace("_", " ").capitalize()
