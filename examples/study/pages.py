"""Write the tables of the studies into the pages that show them, and draw their pictures: python -m examples.study.pages

A page says where: between the lines `<!-- tables: search -->` and `<!-- end -->`; `<!-- tables: questions weight -->` asks for one
part of a study.
"""

import importlib
import re
from pathlib import Path

from examples.study import plots, start
from examples.study.records import ROOT

PLACE = re.compile(r"(<!-- tables: (\w+)(?: (\w+))? -->\n).*?(<!-- end -->)", re.DOTALL)


def pages() -> list[Path]:
    """The pages with tables of studies."""
    every = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [page for page in every if PLACE.search(page.read_text(encoding="utf-8"))]


def filled(page: str) -> str:
    """The text of a page with the tables that the records make."""

    def tables(place: re.Match[str]) -> str:
        study = importlib.import_module(f"examples.study.{place[2]}")
        shown = study.tables() if place[3] is None else study.tables(place[3])
        return f"{place[1]}\n{shown}\n\n{place[4]}"

    return PLACE.sub(tables, page)


if __name__ == "__main__":
    plots.draw()
    start.draw()
    for page in pages():
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
        print(page.relative_to(ROOT))
