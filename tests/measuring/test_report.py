"""The report in a real browser: nothing runs off a phone, a desktop or a printed page, and every picture shows."""

import re
from functools import partial

import pytest
from browser import A4, browsed, needs_browser, shown_in
from handwritten import hardened, loader

import robusttune
from robusttune.evaluations.corruptions import corruptions
from robusttune.evaluations.sanity import sanity
from robusttune.evaluations.sweep import sweep
from robusttune.measuring.record import accuracy
from robusttune.measuring.records import Records

pytest.importorskip("matplotlib")
pytest.importorskip("markdown")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A report of two models with every section in it."""
    which = [
        "clean",
        partial(sweep, steps=3),
        partial(sanity, images=20, steps=3),
        partial(corruptions, names=["fog", "gaussian_noise", "contrast"]),
    ]
    settings = {"norm": "linf", "eps": 0.15, "progress": False}
    runs = {name: robusttune.evaluate(hardened(), loader(), which, **settings) for name in ("before", "after")}
    out = tmp_path_factory.mktemp("report")
    robusttune.report(runs, out)
    return out


def test_the_page_holds_all_it_shows(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    titles = re.findall(r"<h2[^>]*>([^<]+)</h2>", page)
    assert titles == ["Overview", "Sanity", "Summary", "Curve", "Classes", "Failures", "Corruptions", "Cost"]
    assert page.count("<img") == 4
    assert re.findall(r'src="(?!data:)', page) == []
    assert "<link" not in page
    assert "http" not in page.replace("http-equiv", "")


@needs_browser
@pytest.mark.parametrize("width", [390, A4, 1280])
def test_nothing_runs_off_the_page(width, folder, tmp_path):
    facts = shown_in((folder / "report.html").read_text(encoding="utf-8"), width, tmp_path)
    assert facts["wide"] <= width
    assert facts["height"] > 1000
    assert len(facts["pictures"]) == 4
    for natural, right in facts["pictures"]:
        assert natural > 100, "a picture did not load"
        assert right <= width


@needs_browser
def test_it_prints(folder, tmp_path):
    browsed(f"--print-to-pdf={tmp_path / 'page.pdf'}", (folder / "report.html").as_uri())
    pdf = (tmp_path / "page.pdf").read_bytes()
    pages = len(re.findall(rb"/Type\s*/Page\b", pdf))
    assert 2 <= pages <= 12
    assert len(re.findall(rb"/Subtype\s*/Image", pdf)) >= 3  # the two failures' pictures are the same


def test_bars_in_the_names_of_models_do_not_end_cells(tmp_path):
    records = Records([accuracy("clean", 9, 10)])
    path = robusttune.report({"a|b": records, "c": records}, tmp_path, sections=["summary"])
    table = path.read_text(encoding="utf-8").splitlines()[-3:]
    assert table[0] == r"| accuracy | a\|b | c |"
    assert table[2].count(" | ") == 2


def test_a_function_is_a_section_under_its_name(tmp_path):
    def number_of_models(runs, folder):
        assert folder == tmp_path
        return f"{len(runs)}: {', '.join(runs)}"

    page = robusttune.report({"a|b": Records([accuracy("clean", 9, 10)])}, tmp_path, sections=[number_of_models])
    assert page.read_text(encoding="utf-8") == "# Robustness report\n\n## Number of models\n\n1: a|b\n"
