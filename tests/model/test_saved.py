"""Models that are made again from the folder of their run."""

import json
import shutil

import pytest
import torch
from brightness import Net, numbered, write
from safetensors.torch import load_file

import robusttune
from robusttune.cli import main

# timm's data sets leave the files that they have read to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
QUICK = ["--size", "32", "--channels", "1", "--progress", "false", "--epochs", "1", "--tasks", "null", "--steps", "1"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of a model of timm on three classes; its working directory."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data", numbered("abc"), classes=3, size=32)
    source = ["--model", "timm:test_vit", "--model_args", "{img_size: 32}", "--data", "data"]
    assert main(["harden", *source, *QUICK, "--out", "runs/a"]) == 0
    return tmp_path


def check_loaded(folder):
    state = torch.get_rng_state()
    model = robusttune.load(folder)
    assert torch.equal(state, torch.get_rng_state())
    expected = load_file(f"{folder}/model.safetensors")
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert not model.training
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 3)


def test_a_run_of_the_command_line_is_loaded_without_its_data(run):
    shutil.rmtree(run / "data")
    check_loaded("runs/a")


def test_a_run_of_an_earlier_version_is_loaded_by_the_shapes_of_its_weights(run):
    path = run / "runs/a/run.json"
    facts = json.loads(path.read_text())
    del facts["about"]
    path.write_text(json.dumps(facts))
    shutil.rmtree(run / "data")
    check_loaded("runs/a")


def test_a_file_of_weights_is_enough(run):
    shutil.move("runs/a/last.safetensors", "mine.safetensors")
    shutil.rmtree("runs")
    model = robusttune.load("mine.safetensors")
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 3)


def test_runs_that_do_not_name_their_model_are_refused(run):
    batches = [(torch.rand(12, 1, 8, 8), torch.arange(12))]
    robusttune.harden(Net(), batches, epochs=1, steps=1, tasks=None, progress=False, out="runs/p")
    with pytest.raises(ValueError, match="does not name its model, as it was begun from Python"):
        robusttune.load("runs/p")
    assert torch.equal(robusttune.load("runs/p", Net()).fc.weight, load_file("runs/p/model.safetensors")["fc.weight"])
    with pytest.raises(ValueError, match="runs/p does not fit the model: 2 names or shapes differ"):
        robusttune.load("runs/p", Net(3))
    with pytest.raises(ValueError, match=r"'data' holds no run\.json"):
        robusttune.load("data")


def test_a_classifier_that_is_not_trained_is_warned_of(run):
    path = run / "runs/a/run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"run": "pretrain"}))
    with pytest.warns(UserWarning, match="the classifier of its model is not trained"):
        robusttune.load("runs/a")
