"""Records: their file, and how they are shown."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from linear_model import linear

import robusttune
from robusttune import Record, Records
from robusttune.cli import main
from robusttune.evaluations.sweep import sweep
from robusttune.measuring.record import accuracy


def test_records_come_back_from_the_file(tmp_path):
    records = Records([accuracy("sweep", 3, 4, {"norm": "l2", "eps": 0.1 + 0.2}), accuracy("clean", 4, 4)])
    path = records.save(tmp_path / "new" / "records.jsonl")
    assert Records.load(path) == records
    assert [json.loads(line)["evaluation"] for line in path.read_text().splitlines()] == ["sweep", "clean"]
    assert records.where("sweep", eps=0.3) == [records[0]]
    assert records.where(norm="linf") == []
    assert records._repr_markdown_() == records.table()
    assert len(records.table().splitlines()) == 4
    assert [path.name for path in path.parent.iterdir()] == ["records.jsonl"]


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Folders of two runs with an evaluation inside; the Records of the first one."""
    monkeypatch.chdir(tmp_path)
    model, images, labels = linear()
    first, second = (
        robusttune.evaluate(model, [(images[rows], labels[rows])], "clean", out=f"runs/{name}/eval", progress=False)
        for name, rows in (("a", slice(None)), ("b", slice(4)))
    )
    assert len(second) == len(first)
    return first


def test_records_are_read_from_the_folder_of_an_evaluation_and_of_a_run(measured):
    assert (
        Records.load("runs/a/eval/records.jsonl") == Records.load("runs/a/eval") == Records.load("runs/a") == measured
    )


def test_folders_without_records_or_with_several_are_refused(measured):
    shutil.copytree("runs/a/eval", "runs/a/strong")
    with pytest.raises(ValueError, match="'runs/a' holds 2 evaluations: pass one of runs/a/eval, runs/a/strong"):
        Records.load("runs/a")
    with pytest.raises(
        ValueError, match=r"'runs' holds no records\.jsonl: evaluate it first with out='runs/evaluation'"
    ):
        Records.load(Path("runs"))
    with pytest.raises(ValueError, match="'runs/c' is not there: pass the folder that evaluate wrote to"):
        Records.load("runs/c")


def test_folders_are_compared(measured):
    found = robusttune.compare("runs/a", Path("runs/b"))
    assert found == robusttune.compare(measured, Records.load("runs/b/eval"))
    assert {test.images for test in found} == {4}


def test_folders_are_reported_under_their_names(measured):
    page = robusttune.report({"before": "runs/a", "after": Path("runs/b/eval")}, "page", sections=["summary"])
    assert "| before | after |" in page.read_text()
    robusttune.report("runs/a", "one", sections=["summary"])
    assert "| a |" in Path("one/report.md").read_text()


def test_the_shell_reads_the_folders_of_runs_too(measured, capsys):
    assert main(["compare", "runs/a", "runs/b"]) == 0
    assert capsys.readouterr().out == robusttune.compare("runs/a", "runs/b").table() + "\n"
    assert main(["report", "before=runs/a", "runs/b", "--out", "page"]) == 0
    assert "| before | b |" in Path("page/report.md").read_text()
    assert main(["compare", "runs/a", "runs"]) == 1
    assert "evaluate it first with --out 'runs/evaluation'" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["no JSON\n", '{"epoch": 1, "robust": 0.5}\n', "[1, 2]\n", '{"facts": {}}\n[]\n'])
def test_a_file_of_another_kind_holds_no_records(text, tmp_path):
    (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"log\.jsonl holds no Records .*: pass the records\.jsonl of evaluate's out="):
        Records.load(tmp_path / "log.jsonl")


def test_a_record_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = Records([accuracy("clean", 1, 2)]).save(tmp_path / "records.jsonl")
    before = path.read_text()
    with pytest.raises(TypeError):
        Records([Record("clean", "accuracy", 0.5, 2, (0.0, 1.0), {"model": object()})]).save(path)
    assert path.read_text() == before


def test_records_saved_over_others_leave_nothing_of_those_beside_them(tmp_path):
    model, images, labels = linear()
    records = robusttune.evaluate(
        model, [(images, labels)], partial(sweep, steps=2), norm="l2", eps=0.4, out=tmp_path, progress=False
    )
    assert records.failures
    assert len(list(tmp_path.iterdir())) == 3
    again = robusttune.evaluate(model, [(images, labels)], "clean", out=tmp_path, resume=True, progress=False)
    loaded = Records.load(tmp_path / "records.jsonl")
    assert (loaded, loaded.failures, loaded[0].right) == (again, [], again[0].right)
    for count in (1, len(again)):
        bare = Records([accuracy("clean", 1, 2)] * count)
        assert Records.load(bare.save(tmp_path / "records.jsonl"))[0].right is None
        again.save(tmp_path / "records.jsonl")


def test_notebooks_show_tables():
    model, images, labels = linear()
    records = robusttune.evaluate(model, [(images, labels)], "clean", progress=False)
    assert records._repr_markdown_() == records.table()
    assert robusttune.compare(records, records)._repr_markdown_().startswith("|")
