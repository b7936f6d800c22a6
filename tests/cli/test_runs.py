"""Run folders that know themselves: `robusttune evaluate runs/a --data X` needs nothing else."""

import json
import re
import shutil

import pytest
import torch
from brightness import Net, numbered, write
from safetensors import safe_open

import robusttune
from robusttune.cli import main

# timm's data sets leave the files that they have read to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:no weight of the model has changed"),
]

NAMES = sorted(map(str, range(12)))
SHAPE = ["--size", "8", "--channels", "1", "--progress", "false"]
QUICK = ["--epochs", "1", "--tasks", "null", "--steps", "1", "--lr", "0", "--ema", "0"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of 12 classes, whose model is right on every image; its working directory."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data", numbered(NAMES))
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    source = ["--model", "brightness:Net", "--model_args", "{classes: 12}", "--data", "data", *SHAPE]
    threat = ["--norm", "l2", "--eps", "8/255"]
    assert main(["harden", *source, *threat, "--classes_file", "names.txt", *QUICK, "--out", "runs/a"]) == 0
    return tmp_path


def evaluated(capsys, *more):
    """The exit code, the accuracy that is printed, and what is said."""
    capsys.readouterr()
    trust = [] if "--model" in more else ["--trust", "true"]  # the runs name a function
    code = main(["evaluate", *more, *trust, "--which", "clean", "--progress", "false"])
    shown = capsys.readouterr()
    found = re.search(r"accuracy \| ([\d.]+)%", shown.out)
    return code, None if found is None else float(found[1]), shown.err


def test_a_run_folder_holds_the_facts_about_its_model(run):
    about = json.loads((run / "runs/a/run.json").read_text())["about"]
    assert about["classes"] == NAMES
    assert (about["outputs"], about["size"], about["channels"]) == (12, [8, 8], 1)
    assert (about["norm"], about["eps"], about["mean"], about["held_out"]) == ("l2", "8/255", None, None)


def test_the_weights_hold_the_facts_too(run):
    with safe_open(run / "runs/a/model.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["robusttune"])
    assert facts["about"] == json.loads((run / "runs/a/run.json").read_text())["about"]
    assert (facts["model"], facts["model_args"], facts["purpose"]) == ("brightness:Net", {"classes": 12}, "attacks")
    assert (facts["data"], facts["split"], facts["val_split"], facts["data_dir"]) == ("data", "train", None, None)


def test_a_file_of_weights_that_was_moved_knows_its_classes(run, capsys):
    shutil.move(run / "runs/a/model.safetensors", run / "mine.safetensors")
    source = ["--checkpoint", "mine.safetensors", "--model", "brightness:Net", "--data", "data", *SHAPE[:4]]
    assert evaluated(capsys, *source)[:2] == (0, 100.0)  # without the names it is refused, as 10 may come before 2
    (run / "data" / "10").rename(run / "data" / "ten")
    assert "has images of the classes ten" in evaluated(capsys, *source)[2]


def test_evaluate_needs_the_folder_and_images_alone(run, capsys):
    write(run / "test", {name: row for name, row in numbered(NAMES).items() if name not in ("3", "10")})
    code, accuracy, said = evaluated(capsys, "runs/a", "--data", "test", "--out", "runs/e")
    assert (code, accuracy) == (0, 100.0)
    assert "has no image of 2 of 12 classes: 10, 3" in said
    facts = json.dumps(robusttune.Records.load(run / "runs/e/records.jsonl").facts)
    assert f"l2 eps {8 / 255:.6g}" in facts
    assert evaluated(capsys, "--checkpoint", "runs/a", "--model", "brightness:Net", "--data", "data", *SHAPE[:4])[
        :2
    ] == (0, 100.0)


ADDED = [
    (["--channels", "3"], "channels is 3, but the model of 'runs/a' takes images of 1"),
    (["--classes", "11"], "classes is 11, but the model of 'runs/a' has 12 outputs"),
    (["--classes_file", "other.txt"], "class 1 is 'one' and not '1'"),
    (["--data", "more"], "has images of the classes dog, which are not among the model's classes"),
    (["--model", "torchvision:resnet18"], "does not fit the model"),
]


@pytest.mark.parametrize(("more", "says"), ADDED, ids=[each[0] for each, _ in ADDED])
def test_what_does_not_fit_the_run_is_refused(more, says, run, capsys):
    (run / "other.txt").write_text("\n".join(["0", "one", *NAMES[2:]]))
    shutil.copytree(run / "data", run / "more")
    (run / "more/1").rename(run / "more/dog")
    code, accuracy, said = evaluated(capsys, "runs/a", "--data", "data", *more)
    assert (code, accuracy) == (1, None)
    assert says in said


def test_another_size_is_said_and_another_norm_has_its_own_radius(run, capsys, caplog):
    more = ["--size", "16", "--norm", "linf", "--out", "runs/e"]
    assert evaluated(capsys, "runs/a", "--data", "data", *more)[:2] == (0, 100.0)
    assert "was trained on images of 8x8, and gets 16x16" in caplog.text
    facts = json.dumps(robusttune.Records.load(run / "runs/e/records.jsonl").facts)
    assert f"linf eps {8 / 255:.6g}" in facts  # the customary one


def test_a_folder_of_an_earlier_version_says_what_it_does_not_know(run, capsys):
    by_number = list(map(str, range(12)))
    path = run / "runs/a/run.json"
    facts = json.loads(path.read_text())
    del facts["about"]
    path.write_text(json.dumps(facts))
    shutil.rmtree(run / "data")
    write(run / "data", numbered(by_number))  # as that version numbered them
    code, accuracy, said = evaluated(capsys, "runs/a", "--data", "data")
    assert (code, accuracy) == (0, 100.0)
    assert "is of a version that kept no names of classes" in said


def test_a_run_from_python_asks_for_the_model_and_knows_the_rest(run, capsys):
    images = ((torch.arange(12) + 0.5) / 12)[:, None, None, None].expand(12, 1, 8, 8)
    data = torch.utils.data.TensorDataset(images, torch.arange(12))
    data.classes = NAMES
    loader = torch.utils.data.DataLoader(data, batch_size=12)
    settings = {"epochs": 1, "tasks": None, "steps": 1, "lr": 0.0, "ema": 0, "progress": False, "out": "runs/p"}
    robusttune.harden(Net(), loader, norm="linf", eps=4 / 255, **settings)
    about = json.loads((run / "runs/p/run.json").read_text())["about"]
    assert (about["classes"], about["eps"]) == (NAMES, "4/255")
    code, _, said = evaluated(capsys, "runs/p", "--data", "data")
    assert code == 2
    assert "missing: --model" in said
    assert evaluated(capsys, "runs/p", "--data", "data", "--model", "brightness:Net") == (0, 100.0, "")


def test_a_folder_without_a_run_and_one_without_labels_are_refused(run, capsys):
    code, _, said = evaluated(capsys, "data", "--data", "data")
    assert (code, "holds no run.json of a run" in said) == (2, True)
    path = run / "runs/a/run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"run": "pretrain"}))
    code, _, said = evaluated(capsys, "runs/a", "--data", "data")
    assert (code, "its classifier is not trained: harden it first" in said) == (2, True)


def test_replay_and_resume_keep_the_labels(run, capsys):
    assert main(["replay", "runs/a", "--model", "brightness:Net"]) == 0
    assert "the same weights, bit for bit" in capsys.readouterr().out
