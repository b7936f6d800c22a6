"""The study of images without labels: its tables stand on the page of recipes as the records make them."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_shows_the_table_that_the_records_make(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import self_training

    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    records = self_training.known()
    assert records
    for name in {record["setting"] for record in records}:
        assert self_training.table(name, records) in page, f"run {sys.executable} examples/self_training.py --tables"
