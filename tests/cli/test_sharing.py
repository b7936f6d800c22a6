"""From a run on the command line to a folder, a push and an export, and back by --model local-dir:FOLDER."""

import json
import re

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import robusttune
from robusttune.cli import main
from robusttune.cli.parser import parse

# timm's data sets leave the files that they have read to the garbage collector
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:.*no more than guessing"
)

SOURCE = ["--model", "timm:test_resnet", "--size", "16", "--channels", "1", "--progress", "false"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with digits by split and class, a run that was evaluated, and what save made of it."""
    folder, digits = tmp_path_factory.mktemp("sharing"), pytest.importorskip("sklearn.datasets").load_digits(n_class=3)
    for row in range(60):
        inside = folder / "digits" / ("train" if row < 40 else "test") / f"digit {digits.target[row]}"
        inside.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[row] * 15.9).astype(np.uint8)).resize((16, 16)).save(inside / f"{row}.png")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        quick = [
            "--epochs",
            "1",
            "--tasks",
            "null",
            "--steps",
            "1",
            "--eps",
            "4/255",
            "--tune",
            "false",
            "--mean",
            "[0.5]",
            "--std",
            "[0.25]",
        ]
        assert main(["harden", *SOURCE, "--data", "digits", *quick, "--out", "runs/a"]) == 0
        data = ["--data", "digits", "--split", "test", "--progress", "false"]
        assert main(["evaluate", "runs/a", *data, "--which", "clean", "--out", "runs/a/evaluation"]) == 0
        assert main(["save", "runs/a", "published/digits", "--license", "mit"]) == 0
    return folder


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


def accuracy_in(text):
    return float(re.search(r"clean +\| +accuracy +\| ([\d.]+)%", text)[1])


def test_save_writes_what_the_run_knows(here):
    config = json.loads((here / "published/digits/config.json").read_text())
    assert config["label_names"] == ["digit 0", "digit 1", "digit 2"]
    known = config["pretrained_cfg"]
    assert (known["input_size"], known["mean"], known["std"], known["crop_pct"]) == ([1, 16, 16], [0.5], [0.25], 1.0)
    card = (here / "published/digits/README.md").read_text()
    assert "scaled and cropped to a square" in card
    assert "name: digits" in card
    model = timm.create_model("local-dir:published/digits", pretrained=True).eval()
    images = torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(model(images), robusttune.load("runs/a")(images))


@pytest.mark.parametrize("names", [["published/digits"], ["--model", "local-dir:published/digits"]])
def test_evaluate_takes_the_folder_with_its_classes_and_its_preprocessing(here, capsys, names):
    data = ["--data", "digits", "--split", "test", "--which", "clean", "--progress", "false"]
    assert main(["evaluate", *names, *data]) == 0
    shown = capsys.readouterr()
    assert accuracy_in(shown.out) == round(100 * robusttune.Records.load("runs/a")[0].value, 1)
    assert "digit " in shown.out


def test_harden_starts_from_the_folder(here):
    request = parse(["harden", "--model", "local-dir:published/digits", "--data", "digits", "--out", "runs/b"])
    sources = request.sources
    assert (sources.model, sources.checkpoint) == ("timm:test_resnet", "published/digits")
    assert (sources.size, sources.channels, sources.classes) == (16, 1, None)
    assert [float(each) for each in request.arguments["mean"]] == [0.5]
    assert request.arguments["eps"] is None  # the user's, or customary: another run may train for another radius
    asked = parse(["harden", "--model", "local-dir:published/digits", "--size", "8", "--data", "digits", "--out", "b"])
    assert asked.sources.size == 8


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--model", "local-dir:nowhere"], "names the folder 'nowhere', which is not there"),
        (["--model", "local-dir:digits"], "pass --model timm:local-dir:digits --pretrained true"),
    ],
)
def test_a_folder_that_save_did_not_write_is_said(here, capsys, words, match):
    assert main(["harden", *words, "--data", "digits", "--out", "runs/c"]) == 2
    assert match in capsys.readouterr().err


def test_save_takes_the_folder_by_place_or_as_out(here):
    assert main(["save", "runs/a", "--out", "published/again", "--license", "mit"]) == 0
    first, second = (here / f"published/{name}/model.safetensors" for name in ("digits", "again"))
    assert first.read_bytes() == second.read_bytes()


def test_push_lists_what_would_go_up(here, capsys):
    assert main(["push", "published/digits", "me/digits", "--dry_run"]) == 0
    assert capsys.readouterr().out.startswith("would go up to me/digits (private)\n  README.md")
    assert main(["push", "published/digits", "me/digits", "--dry_run", "--private", "false"]) == 0
    assert "(public)" in capsys.readouterr().out
    assert main(["push", "runs/a", "me/digits", "--dry_run"]) == 1
    assert "lacks README.md, config.json" in capsys.readouterr().err


def test_export_compares_accuracy_on_the_images_of_a_folder(here, capsys):
    data = ["--data", "digits", "--split", "test", "--steps", "2", "--progress", "false"]
    assert main(["export", "runs/a", "--to", "torchscript", *data]) == 0
    shown = capsys.readouterr().out
    assert "runs/a/model.ts: torchscript" in shown
    assert "with mean (0.5) and std (0.25)" in shown
    assert "upper bound" in shown
    facts = json.loads((here / "runs/a/model.ts.json").read_text())
    assert facts["accuracy"][0]["value"] == robusttune.Records.load("runs/a")[0].value
    assert facts["accuracy"][2]["setting"]["eps"] == 4 / 255
    assert facts["classes"] == ["digit 0", "digit 1", "digit 2"]
    assert main(["export", "published/digits", "--to", "torchscript", "--path", "other.ts", "--progress", "false"]) == 0
    assert "accuracy was not compared" in capsys.readouterr().out
    assert main(["export", "runs/a", "--to", "torchscript"]) == 1
    assert "is there already: name another file, or pass --overwrite true" in capsys.readouterr().err
    assert main(["export", "runs/a", "--to", "coreml"]) == 1
    assert "--to is 'coreml', but it must be" in capsys.readouterr().err


def test_other_names_of_classes_than_those_of_the_run_are_refused(here, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("zero\none\n")
    assert main(["save", "runs/a", str(tmp_path / "new"), "--classes_file", str(tmp_path / "names.txt")]) == 1
    assert "has 3 classes, digit 0, digit 1, digit 2, but by classes= class 0 is 'zero'" in capsys.readouterr().err
