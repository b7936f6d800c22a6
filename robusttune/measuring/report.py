"""Reports of Records as a page of Markdown and HTML, and as JSON."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from robusttune import plugins
from robusttune.measuring.agreement import measured_word, reworded
from robusttune.measuring.glossary import explained, without_code
from robusttune.measuring.html import page
from robusttune.measuring.record import AGREEMENT
from robusttune.measuring.records import Records, name_of, records_of, words_as_text
from robusttune.measuring.report_json import report_json
from robusttune.measuring.sections import Section
from robusttune.run.markdown import as_text
from robusttune.run.writing import write_text
from robusttune.types import PathLike, check_path, shown

SECTIONS = (
    *("verdict", "sanity", "curve", "setup", "limits", "summary", "confusion", "classes", "failures", "corruptions"),
    "cost",
)
# Details, which a reader unfolds; all of them are printed.
FOLDED = ("summary", "confusion", "classes", "failures", "corruptions", "cost", "words")
ASSURANCE = "assurance"
TITLE = "Robustness report"


def report(
    runs: Records | PathLike | Mapping[str, Records | PathLike],
    out: PathLike,
    *,
    sections: Sequence[str | Section] = SECTIONS,
    assurance: bool = False,
) -> Path:
    """Write a report: `report.md` with its pictures beside it, `report.html`, which holds everything in one file, and `report.json`.

    It begins with a verdict: accuracy under attack and on unchanged images, of each model against the first. Details are folded.

    Args:
        runs: the Records of one model (all or a part of them), or of several by name, such as {"before": …, "after": …}.
            Instead of Records, what `Records.load` reads: a file, a folder that `evaluate` wrote to, or that of a run.
        out: a folder, created if it does not exist.
        sections: names out of `robusttune.measuring.sections`, or functions `(runs, folder) -> Markdown`.
        assurance: add a section for auditors, with the words of NIST, of the EU AI Act and of ISO/IEC, and lines to sign.

    Returns:
        The path of `report.md`.

    Raises:
        ValueError: there is no Record, an unknown section, some Records hold agreement and others accuracy, or two models were measured
            with other labels for the same images.
        ImportError: a section needs a package that is not installed.
    """
    folder = check_path("out", out)
    if isinstance(sections, str) or not isinstance(sections, Sequence):
        raise ValueError(f"sections is {shown(sections)}, but a list is needed, such as {list(SECTIONS[:2])}")
    if not isinstance(assurance, bool):
        raise ValueError(f"assurance is {shown(assurance)}, but True or False is needed")
    models = dict(runs) if isinstance(runs, Mapping) else {_name(runs): runs}
    named = {str(name): records_of(records) for name, records in models.items()}
    if not any(named.values()):
        raise ValueError("there are no Records to report: pass what evaluate returned")
    measured = measured_word(named.values())  # refuses accuracy beside agreement
    wanted = [*sections, *([ASSURANCE] if assurance and ASSURANCE not in sections else [])]
    chosen: list[tuple[str, Section]] = [
        (_title(section), plugins.find("measuring.sections", section)) for section in wanted
    ]
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out is {str(folder)!r}, which is a file: name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    named_as_text = {_as_text(name, list(named)): words_as_text(records) for name, records in named.items()}
    parts = {title: text for title, section in chosen if (text := section(named_as_text, folder))}
    if "Verdict" in parts and (words := _words(parts.values(), measured)):
        parts["Words"] = words
    html = page(_markdown(parts, ()), folder, folded=[_heading(name) for name in FOLDED])
    path = folder / "report.md"
    write_text(path, _markdown(parts, [_heading(name) for name in FOLDED]))
    write_text(folder / "report.html", html)
    write_text(folder / "report.json", report_json(named))
    return path


def _words(texts: Iterable[str], measured: str) -> str:
    """Explain the words of a page; where agreement was measured, those that are about accuracy are left out."""
    known = explained(without_code("\n".join(texts)))
    return "\n".join(
        f"- **{word}**: {meaning}"
        for word, meaning in known.items()
        if measured != AGREEMENT or reworded(f"{word} {meaning}") == f"{word} {meaning}"
    )


def _markdown(parts: Mapping[str, str], folded: Sequence[str]) -> str:
    """Join the parts under their titles; those that are folded stand in a `<details>`, which programs without HTML show open."""
    texts = [
        f"<details><summary>{title}</summary>\n\n{text}\n\n</details>" if title in folded else f"## {title}\n\n{text}"
        for title, text in parts.items()
    ]
    return f"# {TITLE}\n\n" + "\n\n".join(texts) + "\n"


def _name(records: Records | PathLike) -> str:
    return name_of(records) if isinstance(records, str | os.PathLike) else "model"


def _as_text(name: str, names: Sequence[str]) -> str:
    """Return a name as text, with a number where names differ only in signs that no page shows."""
    alike = [each for each in names if as_text(each) == as_text(name)]
    return as_text(name) if len(alike) == 1 else f"{as_text(name)} ({alike.index(name) + 1})"


def _title(section: str | Section) -> str:
    return _heading(section if isinstance(section, str) else getattr(section, "__name__", type(section).__name__))


def _heading(name: str) -> str:
    return name.replace("_", " ").capitalize()
