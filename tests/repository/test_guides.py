"""The guides that explain a report and what is accepted: every part is explained, and terms are linked to the glossary."""

import re
from pathlib import Path

import pytest
from PIL import Image

from robusttune.measuring.report import ASSURANCE, SECTIONS

DOCS = Path(__file__).parents[2] / "docs"
GUIDES = ["report", "troubleshooting", "inputs", "shell-and-python", "from-other-libraries", "runtimes", "logging"]


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_links_the_glossary(guide):
    assert "](glossary.md)" in (DOCS / f"{guide}.md").read_text(encoding="utf-8")


def test_every_part_of_a_report_is_explained_by_the_number_in_the_picture():
    page = (DOCS / "report.md").read_text(encoding="utf-8")
    numbered = dict(re.findall(r"^\| (\d+) \| (\w+) \|", page, re.MULTILINE))
    others = re.findall(r"^\| (\w+) \| `\w+` \|", page, re.MULTILINE)
    shown = [name.capitalize() for name in SECTIONS if name.capitalize() not in others] + ["Words"]
    assert list(numbered.values()) == shown
    assert list(numbered) == [str(number) for number in range(1, len(shown) + 1)]
    assert {name.capitalize() for name in SECTIONS} <= {*shown, *others}
    assert f"{ASSURANCE}=True" in page


@pytest.mark.parametrize("name", ["report.webp", "report-details.webp"])
def test_the_pictures_are_there_and_small(name):
    path = DOCS / name
    assert f"]({name})" in (DOCS / "report.md").read_text(encoding="utf-8")
    assert path.stat().st_size < 200_000
    with Image.open(path) as picture:
        assert picture.width > 600
