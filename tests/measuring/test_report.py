"""The report in a real browser: nothing runs off a phone, a desktop or a printed page, and every picture shows."""

import re
from functools import partial

import numpy as np
import pytest
import torch
from browser import A4, browsed, needs_browser, shown_in
from handwritten import hardened, loader
from linear_model import COUNT, linear
from PIL import Image
from tables import unpadded

import robusttune
from robusttune import Records
from robusttune.evaluations.corruptions import corruptions
from robusttune.evaluations.sanity import sanity
from robusttune.evaluations.sweep import sweep
from robusttune.measuring.record import accuracy
from robusttune.measuring.sections._figure import mark_radii

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
    found = robusttune.evaluate(hardened(), loader(), which, **settings)
    out = tmp_path_factory.mktemp("report")
    robusttune.report({"before": found, "after": found}, out)
    return out


def test_the_page_holds_all_it_shows(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    titles = re.findall(r"<h2[^>]*>([^<]+)</h2>", page)
    assert titles[:5] == ["Verdict", "Sanity", "Curve", "Setup", "Limits"]
    assert titles[5:] == ["Summary", "Confusion", "Classes", "Failures", "Corruptions", "Cost", "Words"]
    assert page.count("<details>") == page.count("</details>") == len(titles[5:])
    assert page.count("<img") == 4
    assert re.findall(r'src="(?!data:)', page) == []
    assert "<link" not in page
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.sample(1)
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


@pytest.mark.slow
@needs_browser
def test_dark_mode_is_dark_on_the_screen_and_paper_is_white(folder, tmp_path):
    page = (folder / "report.html").as_uri()
    shades = {}
    for name, scheme in (("dark", 0), ("light", 1)):
        path = tmp_path / f"{name}.png"
        browsed(
            f"--blink-settings=preferredColorScheme={scheme}", "--window-size=400,400", f"--screenshot={path}", page
        )
        shades[name] = np.asarray(Image.open(path).convert("L")).astype(float)
    assert np.median(shades["dark"]) < 60 < 200 < np.median(shades["light"])
    assert shades["dark"].max() > 200  # the text
    style = (folder / "report.html").read_text(encoding="utf-8").split("<style>")[1]
    assert "@media screen and (prefers-color-scheme: dark)" in style


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
    table = [line for line in unpadded(path.read_text(encoding="utf-8")).splitlines() if line.startswith("|")]
    assert table[0] == r"| accuracy | a\|b | c |"
    assert table[2].count(" | ") == 2


def test_a_function_is_a_section_under_its_name(tmp_path):
    def number_of_models(runs, folder):
        assert folder == tmp_path
        return f"{len(runs)}: {', '.join(runs)}"

    page = robusttune.report({"a|b": Records([accuracy("clean", 9, 10)])}, tmp_path, sections=[number_of_models])
    assert page.read_text(encoding="utf-8") == "# Robustness report\n\n## Number of models\n\n1: a|b\n"


@pytest.mark.slow
def test_a_report_shows_every_run_and_its_curve(tmp_path):
    pytest.importorskip("matplotlib")
    model, images, labels = linear()
    records = robusttune.evaluate(model, [(images, labels)], norm="l2", eps=0.1, progress=False)
    page = robusttune.report({"before": records, "after": records}, tmp_path / "report")
    text = page.read_text()
    assert "| accuracy | before | after |" in unpadded(text)
    assert f"clean, {COUNT} images" in text
    assert (tmp_path / "report" / "curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with pytest.raises(ValueError, match="there are no Records to report"):
        robusttune.report(Records(), tmp_path)
    with pytest.raises(ValueError, match=r"unknown section 'curves' \(did you mean 'curve'\?\)"):
        robusttune.report(records, tmp_path, sections=["curves"])


def test_a_report_sets_the_worst_classes_of_models_side_by_side(tmp_path):
    runs = {
        name: Records([accuracy("clean", 1, count, {"class": count}, metric="worst-class accuracy")])
        for name, count in (("before", 4), ("after", 2))
    }
    (row,) = (line for line in robusttune.report(runs, tmp_path).read_text().splitlines() if "worst-class" in line)
    for shown in ("25.0%", "50.0%", "class 4, 4 images", "class 2, 2 images"):
        assert shown in row


@pytest.mark.slow
def test_the_images_that_fall_first_are_shown(tmp_path):
    model, images, labels = linear()
    records = robusttune.evaluate(model, [(images, labels)], "sweep", norm="l2", eps=0.4, progress=False)
    shown = records.failures
    assert 0 < len(shown) <= 8
    assert len({each.image.tobytes() for each in shown}) == len(shown)
    for each in shown:
        assert each.norm == "l2"
        assert 0 < each.eps <= 0.4
        assert np.linalg.norm(each.found - each.image) <= each.eps + 1e-5
        pair = torch.from_numpy(np.stack([each.image, each.found]))
        assert model(pair).argmax(1).tolist() == [each.label, each.answer]
        assert each.label != each.answer
    assert shown == sorted(shown, key=lambda each: (each.eps, -each.confidence))
    back = Records.load(records.save(tmp_path / "records.jsonl"))
    assert [each.confidence for each in back.failures] == [each.confidence for each in shown]
    assert all((a.found == b.found).all() for a, b in zip(back.failures, shown, strict=True))
    text = robusttune.report({"one": back, "none": Records(back)}, tmp_path).read_text()
    assert text.count("failures-1.png") == 1
    assert "failures-2.png" not in text
    assert f"up to {100 * max(each.confidence for each in shown):.1f}% sure of the wrong class" in text
    assert robusttune.evaluate(model, [(images, labels)], "clean", progress=False).failures == []


def test_names_are_shown_as_they_are_written(tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("markdown")
    model, images, labels = linear()
    which = ["clean", partial(sweep, norms=["l2"], eps=[0.1], attack=lambda loss_of, images, threat, generator: images)]
    which[1].keywords["steps"] = None
    records = robusttune.evaluate(model, [(images, labels)], which, progress=False)
    robusttune.report({"a|b": records, "<b>bold</b>": records, 3: records[:1]}, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    head = page.split(">Summary</h2>")[1].split("<tr>")[1]
    assert [cell.split("</th>")[0] for cell in head.split("<th>")[1:]] == [
        "accuracy",
        "a|b",
        "&lt;b&gt;bold&lt;/b&gt;",
        "3",
    ]
    assert "l2 eps 0.1 by &lt;lambda&gt;, 60 images" in page


def test_radii_are_shown_as_they_were_given_and_stored_as_numbers(tmp_path, monkeypatch):
    marks = []
    monkeypatch.setattr(
        "robusttune.measuring.sections.curve.mark_radii",
        lambda axis, radii: (mark_radii(axis, radii), marks.extend(each.get_text() for each in axis.get_xticklabels())),
    )
    which = ["clean", partial(sweep, steps=2, norms=["linf"], eps=[0, 4 / 255, 8 / 255])]
    out = tmp_path / "measured"
    records = robusttune.evaluate(hardened(), loader(), which, norm="linf", eps=8 / 255, progress=False, out=out)
    assert "eps=8/255" in records.table()
    assert records[-1].setting["eps"] == 8 / 255
    assert str(8 / 255) in (out / "records.jsonl").read_text()
    again = Records.load(out / "records.jsonl")
    text = robusttune.report(again, tmp_path / "page").read_text()
    assert "| linf eps 8/255 by " in text
    assert "Under attack (linf up to 8/255), “model” is right on" in text
    assert "under linf up to 8/255 by sweep" in text
    assert "0.0314" not in text
    assert marks == ["0", "4/255", "8/255"]
    assert "eps=4/255" in robusttune.compare(records, again).table()
