"""The decision report in a real browser, as tests/measuring/test_report.py looks at the other one."""

import re
from html.parser import HTMLParser

import pytest
from browser import A4, needs_browser, shown_in
from simulated import ARMS, hardened, trial
from tables import unpadded

from robusttune.trial.decision import page as page_of
from robusttune.trial.decision.decide import decide, write

pytest.importorskip("scipy")
HEADINGS = [
    "The arms",
    "Which arm for which need",
    "Is the difference real, or noise?",
    "Cost, clean and robust accuracy",
    "What was not tested",
    "Next stage",
    "Questions before production",
    "Standard evaluation items",
    "Words",
]


@pytest.fixture(scope="module", params=[3, 2], ids=["three seeds", "two seeds"])
def page(request, tmp_path_factory):
    """The page of a trial, and whether arms can be told apart."""
    folder = tmp_path_factory.mktemp("decision")
    write(decide(trial(hardened(0.1), seeds=request.param, images=200)), folder)
    return (folder / "decision.html").read_text(encoding="utf-8"), request.param == 3


class Reader(HTMLParser):
    """The tables of a page, by rows, and whether every tag is closed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tables, self.headings = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["h2"]:
            self.headings.append(data)
        elif self.tables and {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data


def test_a_parser_reads_every_part(page):
    text, told = page
    found = Reader(text)
    assert found.open == []
    assert found.headings == [each for each in HEADINGS if told or "noise?" not in each]
    assert [len(table) for table in found.tables] == [9, 12, *([8, 7] if told else []), 4, 10]
    assert all(len({len(row) for row in table}) == 1 for table in found.tables)
    accuracies = [cell for row in found.tables[0][1:] for cell in row[1:-1]]
    shape = r"\d+\.\d( ±\d+\.\d)?" if told else r"\d+\.\d( \(\d+\.\d–\d+\.\d\))?"
    assert all(re.fullmatch(shape, cell) for cell in accuracies)
    assert re.findall(r'src="(?!data:)', text) == []
    assert "<title>Decision report</title>" in text
    assert "http" not in text
    assert "nan" not in re.sub(r"base64,[^\"]+", "", text)


@pytest.mark.sample(2)
@needs_browser
@pytest.mark.parametrize("width", [390, A4, 1280])
def test_nothing_runs_off_the_page(width, page, tmp_path):
    facts = shown_in(page[0], width, tmp_path)
    assert facts["wide"] <= width
    assert len(facts["pictures"]) == 4  # the arms, and the front's three
    for natural, right in facts["pictures"]:
        assert natural > 100, "a picture did not load"
        assert right <= width


def test_no_arm_is_called_the_highest_where_none_withstands(tmp_path):
    truth = hardened()
    truth[:, 3] = -1.0  # beyond the radius; the simulation has one in a thousand still right
    path = write(decide(trial(truth, seeds=2, images=20)), tmp_path)
    rows = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("| linf")]
    assert [row for row in rows if "all alike" in row] == [row for row in rows if "(above)" in row]
    assert "| all alike | 0.0% | – | – | – |" in unpadded(path.read_text(encoding="utf-8"))


def test_arms_that_train_against_another_threat_are_named(tmp_path):
    usual = trial(hardened(0.1), seeds=3, images=200)
    text = write(decide(usual), tmp_path / "usual").read_text()
    assert "Arms that meet an adversary train against linf 0.1.\n" in text
    arms = {**ARMS, "rotation_none": [{"harden": {"eps": 0.2}}], "rotation_joint": [{"harden": {"norm": "l2"}}]}
    text = write(decide(trial(hardened(0.1), seeds=3, images=200, arms=arms)), tmp_path / "other").read_text()
    assert (
        "train against linf 0.1, but rotation_none and rotation_joint against the threat that the plan names there."
        in text
    )


def test_results_of_several_versions_are_said(tmp_path, monkeypatch):
    found = trial(hardened(0.1), seeds=2, images=50)
    for result, version in zip(found.results, ["1", *["2"] * len(found.results)], strict=False):
        result.records.facts["versions"] = {"torch": version}
    for picture in ("_picture", "_front"):
        monkeypatch.setattr(page_of, picture, lambda decision, folder: "")
    assert "Results are of several versions (torch 1 and 2)" in page_of.markdown(decide(found), tmp_path)
