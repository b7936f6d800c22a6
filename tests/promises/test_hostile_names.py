"""Names of classes, models, arms, attacks and notes are text in every page and file: they change no element of it."""

import json
import re
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import torch
from browser import browsed, needs_browser
from hostile_names import hostile_names
from simulated import hardened, trial
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import robusttune
from robusttune.evaluations.sweep import sweep
from robusttune.measuring.checks import Check, Checks, Verdict
from robusttune.measuring.gate_files import as_junit, as_sarif, as_summary
from robusttune.measuring.records import Records
from robusttune.run.markdown import as_text
from robusttune.trial.decision.decide import decide, write
from robusttune.trial.plan_checks import check_arms

NAMES = hostile_names()
CHUNK = 16
CHUNKS = [NAMES[start : start + CHUNK] for start in range(0, len(NAMES), CHUNK)]
SAMPLE = NAMES[:: len(NAMES) // CHUNK][:CHUNK]
EACH_CHUNK = pytest.mark.parametrize(
    "names",
    [pytest.param(SAMPLE, id="sample"), *(pytest.param(each, marks=pytest.mark.slow) for each in CHUNKS)],
)


def test_there_are_more_than_276():
    assert len(NAMES) == len(set(NAMES)) > 276


TEXTS, PICTURES = ("verdict", "summary", "setup", "classes", "cost", "limits"), ("curve", "failures")


class Named(TensorDataset):
    classes = ()


@pytest.fixture(scope="module")
def records():
    torch.manual_seed(0)
    images, model = torch.rand(CHUNK, 1, 8, 8), nn.Sequential(nn.Flatten(), nn.Linear(64, CHUNK))
    loader = DataLoader(Named(images, model(images).argmax(1)), CHUNK)
    return robusttune.evaluate(model, loader, ["clean", partial(sweep, steps=2)], progress=False)


def tame(names):
    """As many harmless names, which are the same where names differ in signs alone that no page shows."""
    shown = [as_text(name) for name in names]
    return [f"name {shown.index(each)}" for each in shown]


def named(records, names):
    """Records in which each place that takes words has one of the names."""
    classes = [*names, *(f"class {number}" for number in range(CHUNK - len(names)))]
    words = iter(list(names) * len(records))
    facts = {
        **records.facts,
        "classes": classes,
        "architecture": names[0],
        "notes": dict(zip(names, names, strict=True)),
    }
    places = ("device", "date", "commit", "pixels", "images")
    facts |= {place: names[number % len(names)] for number, place in enumerate(places, 1)}
    changed = [
        replace(each, setting={**each.setting, **({"attack": next(words)} if "attack" in each.setting else {})})
        for each in records
    ]
    return Records(changed, facts=facts, failures=records.failures)


class Skeleton(HTMLParser):
    """The elements of a page, with their attributes, but without the words of pictures."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.elements = Counter()
        self.feed(page.partition("</style>")[2])

    def handle_starttag(self, tag, attributes):
        shown = (f"{name}={(value or '')[:30] if name != 'alt' else ''}" for name, value in attributes)
        # Styles follow the length of a text, as the class "long" of a cell does.
        kept = sorted(each for each in shown if not each.startswith("style=") and each != "class=long")
        self.elements[(tag, *kept)] += 1

    def handle_comment(self, data):
        self.elements["comment"] += 1

    handle_decl = handle_pi = unknown_decl = handle_comment


def report_with(names, records, folder, sections):
    alike = dict(zip(tame(names)[::-1], names[::-1], strict=True))  # the first name of those that look the same
    different = sorted(alike.values(), key=names.index)
    runs = {name: named(records, names) if row == 0 else records for row, name in enumerate(different)}
    robusttune.report(runs, folder, sections=sections)
    return (folder / "report.html").read_text(encoding="utf-8"), (folder / "report.md").read_text(encoding="utf-8")


def tokens(markdown):
    """What CommonMark, read by another package, takes a page for."""
    reader = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable(["table", "strikethrough"])
    flat = [each for token in reader.parse(markdown) for each in (token, *(token.children or ()))]
    ignored = {"text", "inline", "softbreak", "text_special"}
    return Counter((each.type, each.tag) for each in flat if each.type not in ignored)


@EACH_CHUNK
def test_a_report_has_the_elements_that_it_has_with_harmless_names(names, records, tmp_path):
    page, markdown = report_with(names, records, tmp_path / "hostile", TEXTS)
    usual, plain = report_with(tame(names), records, tmp_path / "tame", TEXTS)
    assert Skeleton(page).elements == Skeleton(usual).elements
    assert tokens(markdown) == tokens(plain)
    assert [re.findall(r"[a-z]://|\bwww\.", text) for text in (markdown, plain)] == [
        [],
        [],
    ]  # which GitHub makes links of
    for text in (page, markdown):
        assert [each for each in text if not each.isprintable() and each != "\n"] == []
    json.loads((tmp_path / "hostile/report.json").read_text(encoding="utf-8"))


@pytest.mark.filterwarnings("ignore:constrained_layout", "ignore:Glyph")
def test_names_that_look_like_formulas_are_words_in_a_picture(records, tmp_path):
    names = ["$$x$$", "$\\frac{$", "_word_", "$x$ and $y", "^_", "\\$"]
    page, _ = report_with(names, records, tmp_path, ("curve",))
    assert page.count("<img") == 1


@needs_browser
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:constrained_layout", "ignore:Glyph")
def test_a_browser_finds_the_same_elements_and_runs_nothing(records, tmp_path):
    shown = []
    for names in (NAMES[:: len(NAMES) // CHUNK][:CHUNK], tame(SAMPLE)):
        report_with(names, records, tmp_path / str(len(shown)), (*TEXTS, *PICTURES))
        path = tmp_path / str(len(shown)) / "report.html"
        shown.append(browsed("--virtual-time-budget=5000", "--dump-dom", path.as_uri()))
    assert Skeleton(shown[0]).elements == Skeleton(shown[1]).elements


@EACH_CHUNK
def test_tables_of_a_notebook_and_a_terminal_have_them_as_text(names, records):
    hostile, usual = named(records, names), named(records, tame(names))
    assert tokens(hostile._repr_markdown_()) == tokens(usual._repr_markdown_())
    assert [each for each in str(hostile) if not each.isprintable() and each != "\n"] == []


@EACH_CHUNK
def test_the_files_of_a_gate_have_the_fields_that_they_have_with_harmless_names(names):
    def checks(names):
        verdicts = (Verdict.MET, Verdict.NOT_MET, Verdict.CANNOT_TELL)
        rows = enumerate(zip(names, names[::-1], names[1:] + names[:1], strict=True))
        return Checks([Check(a, verdicts[row % 3], b, 0.5, (0.4, 0.6), 0.5, 10, c) for row, (a, b, c) in rows])

    def shape(value):
        if isinstance(value, dict):
            return {key: shape(each) for key, each in value.items()}
        return [shape(each) for each in value] if isinstance(value, list) else type(value)

    hostile, usual = checks(names), checks(tame(names))
    for place in (
        "runs/records.jsonl",
        names[0].replace("\0", "").encode(errors="ignore").decode(),
        f"/{names[-1]}".encode(errors="ignore").decode(),
    ):
        for written in (as_summary, as_sarif):
            assert shape(json.loads(written(hostile, place))) == shape(json.loads(written(usual)))
        xml = [
            [(each.tag, *each.attrib) for each in ElementTree.fromstring(as_junit(*of)).iter()]
            for of in ((hostile, place), (usual,))
        ]
        assert xml[0] == xml[1]
        where = json.loads(as_sarif(hostile, place))["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
        assert re.fullmatch(r"(?:file:///)?[\w./%~-]*", where["artifactLocation"]["uri"])
    assert tokens(hostile.table()) == tokens(usual.table())
    assert as_summary(hostile).isascii()


@EACH_CHUNK
def test_an_arm_of_a_trial_has_no_name_that_means_something_on_its_page(names):
    taken = []
    for name in names:
        with suppress(ValueError):
            check_arms({name: []})
            taken.append(name)
    table = "x\n\n| {} | y |\n|---|---|\n"
    for name in taken:
        assert as_text(name) == name
        assert tokens(table.format(name.replace("|", "\\|"))) == tokens(table.format("a"))


@pytest.mark.slow
@pytest.mark.parametrize("names", [NAMES[start::3] for start in range(3)], ids=range(3))
def test_the_page_of_a_trial_has_the_elements_that_it_has_with_harmless_names(names, tmp_path):
    pytest.importorskip("scipy")

    def page(names):
        one = trial(hardened(0.1), seeds=3, images=96)
        for result in one.results:
            result.records.facts.update(classes=names, model=names[0], architecture=names[1], notes={"model": names[2]})
            result.records.labels = tuple(row % len(names) for row in range(96))
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        write(decide(one), folder)
        return (folder / "decision.html").read_text(encoding="utf-8")

    assert Skeleton(page(list(names))).elements == Skeleton(page(tame(names))).elements
