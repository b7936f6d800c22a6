"""The report in a real browser: nothing runs off a phone, a desktop or a printed page, and every picture shows."""

import html
import json
import re
import shutil
import subprocess
from functools import partial

import pytest
from test_strong import hardened, loader

import robusttune
from robusttune.evaluations.corruptions import corruptions
from robusttune.evaluations.sanity import sanity
from robusttune.evaluations.sweep import sweep

pytest.importorskip("matplotlib")
pytest.importorskip("markdown")
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
A4 = 718  # CSS pixels between the margins

MEASURE = """
<iframe id="page" style="width:{width}px;height:900px;border:0" srcdoc="{page}"></iframe><pre id="found"></pre>
<script>
window.onload = () => {{
  const shown = document.getElementById("page").contentDocument;
  const pictures = [...shown.images].map(each => [each.naturalWidth, each.getBoundingClientRect().right]);
  const facts = {{wide: shown.documentElement.scrollWidth, pictures, height: shown.documentElement.scrollHeight}};
  document.getElementById("found").textContent = "FOUND" + JSON.stringify(facts) + "END";
}};
</script>
"""


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


def browsed(*arguments):
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def shown_in(page, width, folder):
    """What a browser makes of a page (its text) in a window so wide."""
    wrapper = folder / "wrapper.html"
    wrapper.write_text(MEASURE.format(width=width, page=html.escape(page, quote=True)), encoding="utf-8")
    shown = browsed("--virtual-time-budget=10000", "--window-size=1400,1000", "--dump-dom", wrapper.as_uri())
    return json.loads(re.search(r"FOUND(.*)END", shown)[1])


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
