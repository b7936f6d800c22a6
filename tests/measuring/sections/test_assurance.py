"""The section for auditors: it holds what was measured, names what is not known, and states no conformity."""

import json
import re

import pytest

import robusttune
from robusttune.measuring import standards
from robusttune.measuring.record import accuracy
from robusttune.measuring.records import Records

SETTING = {"norm": "linf", "eps": 8 / 255, "attack": "apgd", "steps": 50, "seed": 3}


def section(runs, folder):
    text = robusttune.report(runs, folder, sections=["summary"], assurance=True).read_text(encoding="utf-8")
    return text.split("## Assurance")[1]


def measured(**facts):
    rows = [accuracy("clean", 9, 10), accuracy("sweep", 5, 10, SETTING)]
    return Records(rows, facts={"norm": "linf", "eps": "8/255", **facts})


def test_it_is_there_only_if_it_is_asked_for(tmp_path):
    assert "Assurance" not in robusttune.report(measured(), tmp_path).read_text(encoding="utf-8")
    assert "### Threat model" in section(measured(), tmp_path)


def test_it_states_no_conformity_and_leaves_room_to_sign(tmp_path):
    text = section(measured(), tmp_path)
    assert "states no conformity with any law or standard" in text.split("###")[0]
    for line in ("Date", "Role", "Signature"):
        assert re.search(rf"^\| {line} +\| +\|$", text, re.MULTILINE)
    assert not re.search(r"\b(?:complies|compliant|conforms)\b", text)


def test_it_names_attack_version_seed_and_interval(tmp_path):
    text = section(measured(versions={"torch": "9.9"}, commit="abc123"), tmp_path)
    row = next(line for line in text.splitlines() if "sweep, accuracy" in line)
    for word in ("eps=8/255", "attack=apgd", "steps=50", "seed=3", "50.0%", "23.7 to 76.3"):
        assert word in row
    assert "torch 9.9; commit abc123" in text


def test_facts_that_are_not_known_are_said_to_be_not_known(tmp_path):
    text = section(measured(), tmp_path)
    table = text.split("### Data and model")[1].split("###")[0]
    for fact in ("weights before the training run", "weights that were measured", "training images among them"):
        assert re.search(rf"^\| {fact} +\| not known +\|$", table, re.MULTILINE)
    assert "not known; commit not known; measured on not known" in text
    assert "not measured (`corruptions`)" in text
    for gap in ("patches", "turning and shifting", "poisoned", "Privacy"):
        assert gap in text.split("### What was not measured")[1].split("###")[0]
    assert "as no attack was measured" in section(Records([accuracy("clean", 9, 10)]), tmp_path)


def test_fingerprints_before_and_after_and_the_overlap_are_shown(tmp_path):
    run = {
        "folder": "runs/a",
        "weights": "w",
        "function": "harden",
        "start": "aaaa",
        "images": 50,
        "arguments": {"epochs": 2},
    }
    overlap = {"training images": 50, "fingerprint": "tttt", "shared": 1}
    text = section(measured(model="Net bbbb", run=run, overlap=overlap, images="10 cccc"), tmp_path)
    for fact in (
        "aaaa",
        "bbbb",
        "tttt",
        "cccc",
        "1 of the images measured are among the 50",
        "harden on 50 images, epochs 2",
    ):
        assert fact in text


def test_every_date_and_article_comes_from_the_one_file(tmp_path, monkeypatch):
    content = json.loads(standards.PATH.read_text(encoding="utf-8"))
    for text in content.values():
        assert not isinstance(text, dict) or {"title", "date", "source"} <= text.keys()
    before = section(measured(), tmp_path)
    for number in (
        "Art. 15(1)",
        "Art. 15(3)",
        "Art. 15(4)",
        "Art. 15(5)",
        "Annex IV 2(a)",
        "Annex IV 2(g)",
        "2 December 2027",
    ):
        assert number in before
    path = tmp_path / "standards.json"
    path.write_text(json.dumps(with_sevens(content)))
    monkeypatch.setattr(standards, "PATH", path)
    standards.standards.cache_clear()
    try:
        after = section(measured(), tmp_path)
    finally:
        standards.standards.cache_clear()
    act = after.split("### EU AI Act")[1].split("### ISO")[0]
    assert set(re.findall(r"\d", re.sub(r"\d+/\d+", "", act))) == {"7"}
    assert "77777-7" in after


def with_sevens(value):
    """Values of JSON with 7 for each digit; keys stay."""
    if isinstance(value, dict):
        return {key: with_sevens(each) for key, each in value.items()}
    if isinstance(value, list):
        return [with_sevens(each) for each in value]
    return re.sub(r"\d", "7", value)


@pytest.mark.parametrize("name", ["<script>run()</script>", '"quoted" & <b>'])
def test_names_are_text(name, tmp_path):
    runs = {
        name: Records(
            measured(), facts={"model": f"{name} ffff", "notes": {"model": name, "training": name}, "classes": [name]}
        )
    }
    section(runs, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8").partition("<body>")[2]
    assert re.findall(r"<(?:script|b)\b", page) == []
    assert re.findall(r"<(?:script|b)\b", (tmp_path / "report.md").read_text(encoding="utf-8")) == []
