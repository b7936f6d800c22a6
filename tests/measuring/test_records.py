"""Records: their file, and how they are shown."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from linear_model import linear
from tables import unpadded
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

import robusttune
from robusttune import Record, Records, plugins
from robusttune.cli import main
from robusttune.evaluations.sweep import sweep
from robusttune.measuring.record import accuracy


def test_records_come_back_from_the_file(tmp_path):
    records = Records([accuracy("sweep", 3, 4, {"norm": "l2", "eps": 0.1 + 0.2}), accuracy("clean", 4, 4)])
    path = records.save(tmp_path / "new" / "records.jsonl")
    assert Records.load(path) == records
    first, *rows = map(json.loads, path.read_text().splitlines())
    assert first.keys() == {"facts", "checksums"}
    assert [row["evaluation"] for row in rows] == ["sweep", "clean"]
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
    Path("runs/a/unfinished").mkdir()
    with pytest.raises(ValueError, match="interrupted there, evaluate again as before, with resume; or pass"):
        Records.load("runs/a/unfinished")
    with pytest.raises(ValueError, match="'runs/c' is not there: pass the folder that evaluate wrote to"):
        Records.load("runs/c")


def test_folders_are_compared(measured):
    found = robusttune.compare("runs/a", Path("runs/b"))
    assert found == robusttune.compare(measured, Records.load("runs/b/eval"))
    assert {test.images for test in found} == {4}


def test_folders_are_reported_under_their_names(measured):
    page = robusttune.report({"before": "runs/a", "after": Path("runs/b/eval")}, "page", sections=["summary"])
    assert "| before | after |" in unpadded(page.read_text())
    robusttune.report("runs/a", "one", sections=["summary"])
    assert "| a |" in unpadded(Path("one/report.md").read_text())


def test_the_shell_reads_the_folders_of_runs_too(measured, capsys):
    assert main(["compare", "runs/a", "runs/b"]) == 0
    assert capsys.readouterr().out == robusttune.compare("runs/a", "runs/b").table() + "\n"
    assert main(["report", "before=runs/a", "runs/b", "--out", "page"]) == 0
    assert "| before | b |" in unpadded(Path("page/report.md").read_text())
    assert main(["compare", "runs/a", "runs"]) == 1
    assert "evaluate it first with --out 'runs/evaluation'" in capsys.readouterr().err
    Path("runs/c").mkdir()
    assert main(["report", "runs/c", "--out", "none"]) == 1
    assert "evaluate again as before, with resume" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["no JSON\n", '{"epoch": 1, "robust": 0.5}\n', "[1, 2]\n", '{"facts": {}}\n[]\n'])
def test_a_file_of_another_kind_holds_no_records(text, tmp_path):
    (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"log\.jsonl holds no Records .*: pass the records\.jsonl of evaluate's out="):
        Records.load(tmp_path / "log.jsonl")


def test_a_record_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = Records([accuracy("clean", 1, 2)]).save(tmp_path / "records.jsonl")
    before = path.read_text()
    endless = []
    endless.append(endless)
    with pytest.raises(RecursionError):
        Records([Record("clean", "accuracy", 0.5, 2, (0.0, 1.0), {"model": endless})]).save(path)
    assert path.read_text() == before


def test_numbers_of_numpy_and_objects_cost_no_measurement(tmp_path):
    def mine(subject):
        return Record(
            "mine",
            "f1",
            np.float32(0.5),
            np.int64(8),
            (np.float32(0.25), np.float64(0.75)),
            {"k": np.int64(3), "ok": np.bool_(False)},
        )

    class Own(plugins.find("norms", "l2")):
        pass

    model, images, labels = linear()
    which = [mine, partial(sweep, norms=[Own], eps=[0.1], steps=np.int64(1))]
    records = robusttune.evaluate(model, [(images, labels)], which, norm=Own, eps=0.1, out=tmp_path, progress=False)
    assert type(records[0].setting["k"]) is int
    assert records.where(norm=Own)
    first, second = Records.load(tmp_path)
    assert first == records[0]
    assert first.setting["ok"] is False
    assert (second.value, second.setting["steps"], type(second.setting["norm"])) == (records[1].value, 1, str)


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


NAMES = ["cat", "dog", "cow"]
CHECK = Record("sanity", "zero gradients", 0.02, 9, (0.0, 0.1), {"ok": True, "says": "gradients are not zero"})


def named_records():
    worst = accuracy("clean", 1, 3, {"class": 1}, metric="worst-class accuracy")
    return Records([worst, CHECK, replace(CHECK, setting={"ok": False, "says": "blind"})], facts={"classes": NAMES})


def test_tables_name_classes_and_say_pass_and_fail(tmp_path):
    records = named_records()
    _, _, *rows = unpadded(str(records)).splitlines()
    assert rows == [
        "| clean | worst-class accuracy | 33.3% | 6.1–79.2% | 3 | class=dog |",
        "| sanity | zero gradients | pass | – | 9 | says=gradients are not zero |",
        "| sanity | zero gradients | fail | – | 9 | says=blind |",
    ]
    assert len({len(line) for line in str(records).splitlines()}) == 1
    again = Records.load(records.save(tmp_path / "records.jsonl"))
    assert str(again.where("clean")) == str(records.where("clean"))
    assert "class=1 " in str(Records(records))  # without facts, as in files of before


def test_records_become_plain_dicts_and_a_table_of_pandas():
    records = named_records()
    rows = records.to_dict()
    assert json.loads(json.dumps(rows)) == rows
    assert rows[0] == {
        **{"evaluation": "clean", "metric": "worst-class accuracy", "value": 1 / 3, "images": 3},
        **{"interval": list(records[0].interval), "setting": {"class": 1, "class name": "dog"}},
    }
    rows[1]["setting"]["ok"] = "changed"
    assert records[1].setting["ok"] is True
    pytest.importorskip("pandas")
    table = Records([*records, accuracy("clean", 1, 2, {"images": 7})], facts=records.facts).to_dataframe()
    assert list(table.columns[:7]) == ["evaluation", "metric", "value", "low", "high", "images", "class"]
    assert table["class name"].tolist()[0] == "dog"
    assert table["setting images"].tolist()[-1] == 7
    assert list(Records().to_dataframe().columns) == list(table.columns[:6])


def test_names_of_classes_come_from_the_data(tmp_path, caplog):
    model, images, labels = linear()

    class Animals(TensorDataset):
        class_to_idx = {"dog": 1, "cat": 0}  # noqa: RUF012

    caplog.set_level("INFO")
    loader = DataLoader(Subset(Animals(images, labels), range(20)), 10)
    records = robusttune.evaluate(model, loader, ["clean", partial(sweep, steps=2)], norm="l2", eps=0.4, progress=False)
    assert records.classes == ("cat", "dog")
    assert records.where("clean")[2].setting["class"] in (0, 1)
    assert "class=cat" in str(records) or "class=dog" in str(records)
    pytest.importorskip("matplotlib")
    text = unpadded(robusttune.report(records, tmp_path).read_text(encoding="utf-8"))
    assert "cat taken for dog" in text or "dog taken for cat" in text
    assert "| cat |" in text
    assert ", class cat," in text or ", class dog," in text
    three = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    three(images)
    loader.dataset.dataset.classes = NAMES
    robusttune.evaluate(three, loader, "clean", progress=False)
    assert "no images of 1 of 3 classes (cow)" in caplog.text


def test_what_is_printed_is_a_table():
    records = Records([accuracy("clean", 1, 2)])
    assert f"{records}" == records.table()
    model, images, labels = linear()
    measured = robusttune.evaluate(model, [(images, labels)], "clean", progress=False)
    comparisons = robusttune.compare(measured, measured)
    assert str(comparisons) == comparisons.table()


def test_a_comparison_names_what_one_model_alone_has():
    model, images, labels = linear()
    first, second = (
        robusttune.evaluate(
            model, [(images, labels)], ["clean", partial(sweep, norms=["linf"], eps=[eps], steps=1)], progress=False
        )
        for eps in (0.1, 0.2)
    )
    assert robusttune.compare(first, first).left_out == ""
    compared = robusttune.compare(first, second)
    assert [each.what for each in compared] == ["clean"]
    said = str(compared).rpartition("\n\n")[2]
    assert said.startswith("Not compared, as one model alone has it: only of the first sweep, norm=linf, eps=0.1, ")
    assert "And only of the second sweep, norm=linf, eps=0.2, " in said
    assert said.endswith("Evaluate both alike, with the same norm and eps.")


def test_a_comparison_says_that_quick_is_left_out_where_it_measured_a_part():
    model, images, labels = linear()
    many = (images.repeat(3, 1, 1, 1), labels.repeat(3))
    some = robusttune.evaluate(model, [many], ["clean", "quick"], norm="linf", eps=0.1, progress=False)
    compared = robusttune.compare(some, some)
    assert [each.what for each in compared] == ["clean"]
    assert compared.left_out.startswith(
        "Not compared: `quick`, which measures a part of the images alone: evaluate both with"
    )


def test_records_of_different_images_are_not_combined(caplog):
    model, images, labels = linear()
    first, second, again = (
        robusttune.evaluate(model, [(images[rows], labels[rows])], [partial(sweep, eps=[0.1], steps=1)], progress=False)
        for rows in (slice(8), slice(8, 16), slice(8))
    )
    joined = Records([*first, *again])
    assert joined.worst(norm="linf", eps=0.1).right == first.where(norm="linf", eps=0.1)[0].right
    assert not caplog.text
    joined = Records([*first, *second])
    assert (
        "Records of 2 different sets of images were joined: their answers to single images are left out" in caplog.text
    )
    with pytest.raises(ValueError, match=r"no Record of .* holds the answer to each image"):
        joined.worst(norm="linf", eps=0.1)
    assert [each.value for each in joined] == [each.value for each in (*first, *second)]


def test_images_that_occur_with_two_labels_are_themselves_in_each_order():
    """Each is right with one label, and stays so under an attack that changes nothing."""
    model, images, labels = linear()
    twice = torch.cat([images, images]), torch.cat([labels, 1 - labels])
    small = partial(sweep, norms=["linf"], eps=[1e-7], steps=1)
    first, second = (
        robusttune.evaluate(
            model, DataLoader(TensorDataset(*twice), 40, shuffle=True), ["clean", small], seed=seed, progress=False
        )
        for seed in (0, 1)
    )
    assert first.hashes == second.hashes
    assert [each.worst().value for each in (first, second)] == [0.5, 0.5]
    assert [(each.only_first, each.only_second) for each in robusttune.compare(first, second)] == [(0, 0)] * 2
    # As Records of before have them, in the order of the loader, and of a part of the images.
    before = Records(
        [replace(first[0], right=first[0].right[::-1])], hashes=first.hashes[::-1], labels=first.labels[::-1]
    )
    part = Records(
        [replace(first[0], right=first[0].right[1::2])], hashes=first.hashes[1::2], labels=first.labels[1::2]
    )
    for other, count in ((before, 120), (part, 60)):
        assert [(each.images, each.p) for each in robusttune.compare(first, other)] == [(count, 1.0)]
    wrong = Records([first[0]], hashes=first.hashes, labels=[0] * 120)
    with pytest.raises(ValueError, match="the two have other labels for the same images"):
        robusttune.compare(first, wrong)
