"""`--data_args '{class_map: FILE}'`: the order of the class map is that of labels, and labels still go by name."""

import json
import re

import pytest
from brightness import numbered, write

from robusttune.cli import main
from robusttune.cli.options import Sources
from robusttune.cli.sources import loader_of

# timm's data sets leave the files that they have read to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:no weight of the model has changed"),
]

NAMES = ["owl", "ant", "10", "cat", "2", "bee"]
SOURCE = ["--model", "brightness:Net", "--model_args", "{classes: 6}", "--size", "8", "--channels", "1"]
QUICK = [
    "--epochs",
    "1",
    "--tasks",
    "null",
    "--steps",
    "1",
    "--lr",
    "0",
    "--ema",
    "0",
    "--norm",
    "linf",
    "--eps",
    "8/255",
]
MAP = ["--data_args", "{class_map: names.txt}"]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Folders of six classes, and a class map; it is the working directory."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data" / "train", numbered(NAMES), classes=6)
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n\n")
    return tmp_path


def called(capsys, *arguments):
    """The exit code, the accuracy that is printed, and what is said."""
    capsys.readouterr()
    code = main([*arguments, "--progress", "false"])
    shown = capsys.readouterr()
    found = re.search(r"accuracy \| ([\d.]+)%", shown.out)
    return code, None if found is None else float(found[1]), shown.err


def test_the_order_of_the_map_is_that_of_labels(data, capsys):
    options = [*SOURCE, "--data", "data", "--split", "train", "--which", "clean"]
    assert called(capsys, "evaluate", *options, *MAP) == (0, 100.0, "")
    inline = "{class_map: {owl: 0, ant: 1, 10: 2, cat: 3, 2: 4, bee: 5}}"
    assert called(capsys, "evaluate", *options, "--data_args", inline) == (0, 100.0, "")


def test_a_run_remembers_the_order_and_another_folder_goes_by_name(data, capsys):
    assert called(capsys, "harden", *SOURCE, "--data", "data", *MAP, *QUICK, "--out", "runs/a")[0] == 0
    facts = json.loads((data / "runs/a/run.json").read_text())
    assert facts["about"]["classes"] == NAMES
    assert facts["command"]["data_args"] == {"class_map": "names.txt"}
    (data / "names.txt").unlink()  # the run needs it no more
    write(data / "others", {"2": 4, "bee": 5, "ant": 1}, classes=6)
    code, accuracy, said = called(
        capsys, "evaluate", "runs/a", "--trust", "true", "--data", "others", "--which", "clean"
    )
    assert (code, accuracy) == (0, 100.0)
    assert "has no image of 3 of 6 classes: owl, 10, cat" in said
    (data / "other.txt").write_text("bee\n2\nant\n")
    more = ["--data_args", "{class_map: other.txt}", "--which", "clean"]
    assert called(capsys, "evaluate", "runs/a", "--trust", "true", "--data", "others", *more)[:2] == (0, 100.0)
    (data / "other.txt").write_text("wasp\n2\nant\n")
    code, _, said = called(capsys, "evaluate", "runs/a", "--trust", "true", "--data", "others", *more)
    assert code == 1
    assert "has images of the classes wasp, which are not among the model's classes" in said


def labels_of(data, **table):
    loader = loader_of(
        Sources("", str(data / "data"), size=8, channels=1, batch_size=6, data_args={"class_map": table})
    )
    return next(iter(loader))[1].tolist(), loader.dataset.classes


def test_classes_that_share_a_label_share_a_name(data):
    table = {"owl": 0, "bee": 1, "ant": 1, "cat": 2, "10": 0, "2": 2}
    labels, names = labels_of(data, **table)
    assert names == ["owl or 10", "bee or ant", "cat or 2"]
    assert sorted(labels) == [0, 0, 1, 1, 2, 2]


def test_folders_that_the_map_leaves_out_are_said(data, capsys):
    labels, names = labels_of(data, owl=0, bee=1)
    assert (sorted(labels), names) == ([0, 1], ["owl", "bee"])
    assert "the class map does not name 10, 2, ant, cat of the split 'train'" in capsys.readouterr().err


def test_a_map_with_gaps_is_refused(data):
    with pytest.raises(ValueError, match="no class for the labels 1, 2: number the classes from 0"):
        labels_of(data, owl=0, bee=3)
    (data / "names.txt").write_text("owl\n\nbee\nowl\n")
    with pytest.raises(ValueError, match="no class for the labels 0, 1"):
        loader_of(Sources("", str(data / "data"), size=8, channels=1, data_args={"class_map": str(data / "names.txt")}))
