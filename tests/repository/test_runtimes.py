"""The figures on the page of runtimes are those of the records."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def writer():
    spec = importlib.util.spec_from_file_location("write_runtimes", DOCS / "write_runtimes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_up_to_date():
    page = (DOCS / "runtimes.md").read_text(encoding="utf-8")
    assert page == writer().written(page), "run python docs/write_runtimes.py"


def test_every_table_is_on_the_page_and_has_rows():
    module = writer()
    page = (DOCS / "runtimes.md").read_text(encoding="utf-8")
    assert {name for _, name, _ in module.PLACE.findall(page)} == set(module.TABLES)
    for name, make in module.TABLES.items():
        assert name == "estimates" or len(make().splitlines()) > 3, name


def test_a_duration_is_in_a_unit_that_one_reads():
    assert [writer().duration(seconds) for seconds in (0.174, 9.94, 34, 185, 9000)] == [
        "0.17 s",
        "9.9 s",
        "34 s",
        "3 min",
        "2.5 h",
    ]
