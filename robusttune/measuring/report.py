"""Records as a page that people read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robusttune import plugins
from robusttune.measuring.html import page
from robusttune.measuring.records import Records


def report(
    runs: Records | Mapping[str, Records],
    out: str | Path,
    *,
    sections: Sequence[Any] = ("overview", "sanity", "summary", "curve", "classes", "failures", "corruptions", "cost"),
) -> Path:
    """The path of a report, `report.md` in the folder `out`, with its pictures beside it, and `report.html`, one file.

    Args:
        runs: Records of one model (a part of them will do), or of several by name, such as {"before": …, "after": …}.
        out: a folder, made where it does not exist.
        sections: by name, or `(runs, folder) -> Markdown`.

    Raises:
        ValueError: there is no Record, or an unknown section.
        ImportError: a section needs a package that is not installed.
    """
    given = runs if isinstance(runs, Mapping) else {"model": runs}
    # A bar would end the cell of a table.
    named = {
        str(name).replace("|", "\\|"): records if isinstance(records, Records) else Records(records)
        for name, records in given.items()
    }
    if not any(named.values()):
        raise ValueError("there are no Records to report: pass what evaluate returned")
    wanted = [(section, plugins.find("measuring.sections", section)) for section in sections]
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    pages = [f"## {_title(section)}\n\n{text}" for section, make in wanted if (text := make(named, folder))]
    text = "# Robustness report\n\n" + "\n\n".join(pages) + "\n"
    html = page(text, folder)
    path = folder / "report.md"
    path.write_text(text, encoding="utf-8")
    (folder / "report.html").write_text(html, encoding="utf-8")
    return path


def _title(section: Any) -> str:
    return str(section if isinstance(section, str) else section.__name__).replace("_", " ").capitalize()
