"""One policy for classifiers: a new one is said, an untrained one is not measured in silence, and a wide one is asked about."""

import json

import pytest
import timm
import torch
from brightness import Net, numbered, write
from torch import nn
from torchvision import models as zoo

import robusttune
from robusttune.cli import main
from robusttune.model import named

# timm's data sets leave the files that they have read to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

NAMES = ["ant", "bee", "cat", "dog", "elk", "fox"]
QUICK = ["--epochs", "1", "--tasks", "null", "--steps", "1", "--progress", "false"]
SHAPE = ["--size", "8", "--channels", "1"]
WITHOUT_BATCH_NORM = "torchvision:squeezenet1_1"
FUNCTION = ["--model", "brightness:Net", "--data", "data", *SHAPE]  # with 12 outputs


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Images of six classes; the working directory."""
    monkeypatch.chdir(tmp_path)
    for split in ("train", "validation"):
        write(tmp_path / "data" / split, numbered(NAMES), classes=6)
    return tmp_path


@pytest.fixture
def published(monkeypatch):
    """Networks of timm and torchvision whose published weights, of 1000 classes, need not be fetched."""

    def create(name, pretrained=False, **settings):
        return create_model(name, **settings)

    def get(name, weights=None, **settings):
        assert weights in (None, "DEFAULT")
        return get_model(name, **settings)

    create_model, get_model = timm.create_model, zoo.get_model
    monkeypatch.setattr(timm, "create_model", create)
    monkeypatch.setattr(zoo, "get_model", get)
    monkeypatch.setattr(named, "_read_without_pickle", lambda model, weights: None)


def said(capsys, *words):
    """The exit code, and what is said on stderr."""
    capsys.readouterr()
    code = main(words)
    return code, capsys.readouterr().err


def outputs_of(folder):
    return json.loads((folder / "run.json").read_text())["about"]["outputs"]


@pytest.mark.parametrize("model", ["timm:test_resnet", WITHOUT_BATCH_NORM])
def test_random_weights_are_said_and_measured_only_if_asked_for(model, data, capsys):
    source = ["--model", model, "--data", "data", "--size", "32", "--progress", "false"]
    code, text = said(capsys, "evaluate", *source, "--which", "clean")
    assert code == 1
    assert f"{model} has random weights, so its results mean nothing: pass --pretrained," in text
    assert "or pass --untrained" in text
    assert said(capsys, "evaluate", *source, "--which", "clean", "--untrained", "true")[0] == 0
    code, text = said(capsys, "harden", *source, *QUICK, "--out", "runs/a")
    assert code == 0
    assert f"{model} has random weights: pass --pretrained, --checkpoint FILE, or --finetune EPOCHS, such as 5" in text


@pytest.mark.parametrize("model", ["timm:test_resnet", pytest.param(WITHOUT_BATCH_NORM, marks=pytest.mark.slow)])
def test_a_published_classifier_of_other_classes_is_replaced_and_said(model, data, published, capsys):
    source = ["--model", model, "--pretrained", "true", "--data", "data", "--size", "32", "--progress", "false"]
    line = f"the classifier of {model} has 1000 outputs and is replaced by a new one of 6, which is not trained"
    code, text = said(capsys, "evaluate", *source, "--which", "clean")
    assert (code, f"{line}, so its results mean nothing" in text) == (1, True)
    code, text = said(capsys, "harden", *source, *QUICK, "--pretrain_epochs", "1", "--finetune", "1", "--out", "runs/a")
    assert (code, f"{line}: --finetune trains it first" in text) == (0, True)
    assert outputs_of(data / "runs/a") == 6
    assert outputs_of(data / "runs/a/finetune") == 6
    assert (data / "runs/a/pretrain/heads.safetensors").exists()
    assert said(capsys, "evaluate", "runs/a", "--trust", "true", "--data", "data", "--which", "clean")[0] == 0
    assert said(capsys, "replay", "runs/a", "--trust", "true")[0] == 0


@pytest.mark.parametrize("command", ["harden", "evaluate", "poc"])
def test_a_function_of_other_classes_is_asked_about_with_both_ways(command, data, capsys):
    code, text = said(capsys, command, *FUNCTION, "--out", "runs/a")
    assert code == 1
    assert "the model has 12 outputs, but there are 6 classes (ant, bee, cat" in text
    assert "pass --classes_file with the names of the classes" in text
    assert "--classes 6 for a new classifier, which is not trained" in text


def test_a_function_gets_the_classifier_that_is_asked_for_and_its_run_knows_it(data, capsys):
    code, text = said(capsys, "harden", *FUNCTION, "--classes", "6", *QUICK, "--out", "runs/a")
    assert code == 0
    assert "the classifier of brightness:Net has 12 outputs and is replaced by a new one of 6, which is not" in text
    assert said(capsys, "evaluate", "runs/a", "--trust", "true", "--data", "data", "--which", "clean")[0] == 0
    assert robusttune.load("runs/a", trust=True).fc.out_features == 6
    assert said(capsys, "replay", "runs/a", "--trust", "true")[0] == 0
    assert said(capsys, "harden", *FUNCTION, "--classes", "6", *QUICK, "--out", "runs/a", "--resume", "true")[0] == 0
    code, text = said(capsys, "evaluate", *FUNCTION, "--classes", "6", "--which", "clean")
    assert (code, "so its results mean nothing" in text) == (1, True)
    code, text = said(capsys, "evaluate", *FUNCTION, "--classes", "12", "--which", "clean")
    assert (code, "it is not known which output is which class" in text) == (1, True)


@pytest.mark.parametrize("model", ["brightness:Net", "timm:test_resnet"])
def test_a_checkpoint_of_other_classes_is_refused_or_its_classifier_replaced(model, data, capsys):
    made = Net(9) if model == "brightness:Net" else timm.create_model("test_resnet", num_classes=9, in_chans=1)
    torch.save(made.state_dict(), "mine.pth")
    source = ["--model", model, "--checkpoint", "mine.pth", "--data", "data", "--size", "32", "--channels", "1"]
    code, text = said(capsys, "harden", *source, *QUICK, "--out", "runs/a")
    assert (code, "the model has 9 outputs, but there are 6 classes" in text) == (1, True)
    code, text = said(capsys, "harden", *source, *QUICK, "--classes", "6", "--out", "runs/a")
    assert code == 0
    assert f"the classifier of {model} has 9 outputs and is replaced by a new one of 6" in text
    assert outputs_of(data / "runs/a") == 6


def test_the_run_of_other_classes_gives_its_backbone_to_a_new_classifier(data, capsys):
    write(data / "other", numbered(["left", "right"]), classes=2)
    assert main(["harden", *FUNCTION, "--model_args", "{classes: 6}", *QUICK, "--out", "runs/a"]) == 0
    source = ["--model", "brightness:Net", "--checkpoint", "runs/a", "--data", "other", *SHAPE]
    assert said(capsys, "harden", *source, *QUICK, "--out", "runs/b")[0] == 1
    code, text = said(capsys, "harden", *source, *QUICK, "--classes", "2", "--out", "runs/b")
    assert (code, "has 6 outputs and is replaced by a new one of 2" in text) == (0, True)
    assert json.loads((data / "runs/b/run.json").read_text())["about"]["classes"] == ["left", "right"]


def test_a_run_that_learnt_without_labels_has_an_untrained_classifier(data, capsys):
    source = ["--model", "timm:test_resnet", "--data", "data", "--size", "32", "--progress", "false"]
    code, text = said(capsys, "pretrain", *source, "--epochs", "1", "--tasks", "{rotation: 1}", "--out", "runs/p")
    assert (code, "random weights" in text) == (0, False)
    line = "the run in 'runs/p' learnt without labels and has no trained classifier"
    assert f"{line}, so its results mean nothing" in said(capsys, "evaluate", *source, "--checkpoint", "runs/p")[1]
    code, text = said(capsys, "harden", *source, *QUICK, "--checkpoint", "runs/p", "--out", "runs/a")
    assert (code, f"{line}: pass --finetune EPOCHS" in text) == (0, True)


def test_a_published_classifier_of_the_same_classes_is_kept(data, monkeypatch, capsys):
    kept = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 6))
    monkeypatch.setattr(zoo, "get_model", lambda name, **settings: kept)
    monkeypatch.setattr(named, "_read_without_pickle", lambda name, weights: None)
    source = ["--model", "torchvision:any", "--pretrained", "true", "--data", "data", "--size", "32"]
    code, text = said(capsys, "evaluate", *source, "--which", "clean", "--progress", "false")
    assert (code, "replaced" in text) == (0, False)
