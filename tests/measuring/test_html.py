"""Words that come from elsewhere stay words in every page: no link, picture, heading or HTML comes out of a name."""

import re
from functools import partial
from xml.etree import ElementTree

import pytest
import torch
from browser import A4, needs_browser, shown_in
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import robusttune
from robusttune.evaluations.sweep import sweep
from robusttune.measuring.html import page
from robusttune.measuring.record import accuracy
from robusttune.measuring.records import Records
from robusttune.run.markdown import as_text, markdown_table

HOSTILE = [
    "[weights](javascript:document.body.id=7)",
    "[weights][1]\n\n[1]: javascript:run",
    "![x](private.png)",
    "![x](http://evil.example/t.png)",
    "![x](gone.png)",
    "<script>document.body.id=7</script>",
    "<img src=x onerror=run()>",
    "<http://evil.example>",
    "<me@evil.example>",
    "\n# Robust",
    "a\n\n## Verdict: safe\n\n",
    "`code` **bold**",
    "| cell | more |",
    "&lt;script&gt;",
    "data:image/png;base64,AAAA",
    "\x1b[31mred\x07",
]


class Named(TensorDataset):
    classes = (HOSTILE[0], HOSTILE[2], HOSTILE[5], HOSTILE[9])


@pytest.fixture(scope="module")
def records():
    torch.manual_seed(0)
    images, model = torch.rand(8, 1, 8, 8), nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    labels = model(images).argmax(1)
    return robusttune.evaluate(
        model, DataLoader(Named(images, labels), 8), ["clean", partial(sweep, steps=3)], progress=False
    )


@pytest.mark.slow
def test_names_are_text_on_the_page_of_a_report(records, tmp_path):
    Image.new("RGB", (3, 3), (9, 8, 7)).save(tmp_path / "private.png")
    robusttune.report(dict.fromkeys(HOSTILE, records), tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"<(?:a|script|iframe|object|link)\b", text) == []
    assert re.findall(r'src="(?!data:image/png;base64,iVBOR)', text) == []
    assert len(re.findall("<img", text)) == 1 + len(HOSTILE)  # the curve, and the failures of each
    known = {
        "Robustness report",
        "Verdict",
        "Curve",
        "Setup",
        "Limits",
        "Summary",
        "Confusion",
        "Classes",
        "Failures",
        "Cost",
        "Words",
    }
    assert set(re.findall(r"<h\d[^>]*>([^<]*)</h\d>", text)) <= known
    assert not re.search(r"on\w+=[^\"]", re.sub(r"&lt;[^&]*", "", text).partition("<body>")[2])
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert not re.search(r"^#+ (?:Robust$|Verdict:)", markdown, re.MULTILINE)
    assert "<script" not in markdown
    assert "\x1b" not in markdown


def test_a_notebook_shows_names_as_text(records):
    shown = records._repr_markdown_()
    assert "](javascript" not in shown.replace("\\](javascript", "")
    assert "\x1b" not in shown


def test_a_notebook_shows_a_table_with_the_cells_that_are_printed():
    records = Records([accuracy("clean", 1, 2, {"attack": name}) for name in HOSTILE])
    table = records._repr_html_()
    assert set(re.findall(r"<(\w+)", table)) == {"table", "thead", "tbody", "tr", "th", "td"}
    cells = [["".join(cell.itertext()) for cell in row] for row in ElementTree.fromstring(table).iter("tr")]
    printed = [line[1:-1].replace("\\|", "\0").split("|") for line in records.table().splitlines()]
    del printed[1]  # the line below the head
    assert len(cells) == 1 + len(HOSTILE)
    assert [[each.strip() for each in row] for row in cells] == [
        [each.strip().replace("\0", "|") for each in row] for row in printed
    ]


@pytest.mark.parametrize("name", HOSTILE)
def test_the_page_itself_has_no_links_and_no_foreign_pictures(name, tmp_path):
    Image.new("RGB", (3, 3)).save(tmp_path / "own.png")
    text = page(f"# Title\n\n{name}\n\n![own](own.png)\n", tmp_path).partition("<body>")[2]
    assert re.findall(r"<(?:a|script|iframe|object|link)\b", text) == []
    assert [
        each for each in re.findall(r'src="([^"]*)"', text) if not each.startswith("data:image/png;base64,iVBOR")
    ] == []


def test_usual_names_are_left_as_they_are():
    for name in ("resnet_18", "vit-small/16", "linf 8/255", "before (v1.2)", "Größe", "猫", "a_b_c"):
        assert as_text(name) == name


def test_a_page_reads_pictures_of_its_folder_alone(tmp_path):
    (tmp_path / "inside").mkdir()
    Image.new("RGB", (3, 3)).save(tmp_path / "secret.png")
    for source in ("../secret.png", str(tmp_path / "secret.png"), "/etc/passwd", "secret.svg"):
        text = page(f"![words]({source})", tmp_path / "inside")
        assert "<img" not in text
        assert "words" in text


def test_text_of_records_that_were_edited_is_text(records, tmp_path):
    from dataclasses import replace

    edited = Records(
        [replace(each, metric=HOSTILE[0], setting={**each.setting, "attack": HOSTILE[3]}) for each in records],
        facts={**records.facts, "model": HOSTILE[5], "device": HOSTILE[0]},
    )
    robusttune.report(edited, tmp_path, sections=["summary", "cost"])
    text = (tmp_path / "report.html").read_text(encoding="utf-8").partition("<body>")[2]
    assert re.findall(r"<(?:a|script|img)\b", text) == []


@pytest.mark.slow
@needs_browser
def test_a_wide_table_fits_a_printed_page(tmp_path):
    """Twelve classes with names of forty letters, which have no place to break."""
    names = [f"{number}_{'class' * 8}" for number in range(12)]
    rows = [["50.5%"] * len(names) for _ in range(3)]
    shown = page(markdown_table(names, rows), tmp_path).replace("@media print", "@media all")
    assert shown_in(shown, A4, tmp_path)["wide"] <= A4


@needs_browser
@pytest.mark.slow
def test_a_long_word_in_a_cell_is_not_cut_on_paper_and_numbers_stay_whole(tmp_path):
    rows = [["w" * 150, "50.5%", "x" * 31, "**" + "y" * 150 + "**"], ["clean", "100.0%", "short", "12,345"]]
    shown = page(markdown_table(["name", "share", "more", "last"], rows, right=[1]), tmp_path)
    assert shown.count('class="long"') == 3
    printed = shown.replace("@media print", "@media all")
    assert shown_in(printed, A4, tmp_path)["wide"] <= A4
    # One line for a number: the page is as high as with numbers that cannot break.
    fixed = printed.replace("</style>", "td:nth-child(2) { white-space: nowrap; }</style>")
    assert shown_in(fixed, A4, tmp_path)["height"] == shown_in(printed, A4, tmp_path)["height"]
