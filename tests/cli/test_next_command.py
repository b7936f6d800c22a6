"""Lines that say which command comes next: each can be pasted as it stands."""

import shlex

import numpy as np
import pytest
from PIL import Image

from robusttune.cli import main
from robusttune.cli.next_command import after_harden, command_of
from robusttune.cli.options import Sources, options_of
from robusttune.cli.parser import parse

# timm's data sets leave the files that they have read to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*held-out accuracy"),
]
QUICK = ["--max-steps", "1", "--epochs", "1", "--no-progress"]


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Images of two classes in the splits train and test, in a folder whose name has a space."""
    for row in range(24):
        place = tmp_path / "my images" / ("train" if row < 16 else "test") / "ab"[row % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32), 10 * row, np.uint8)).save(place / f"{row}.png")
    monkeypatch.chdir(tmp_path)
    named = ["--model", "timm:test_resnet", "--data", "my images", "--size", "32", "--channels", "1"]
    return [*named, "--batch-size", "8"]


def following(capsys):
    """The words of the command that the last one named."""
    *_, line = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next: ")]
    assert "…" not in line
    program, *words = shlex.split(line.removeprefix("next: "))
    assert program == "robusttune"
    return words


@pytest.mark.slow
def test_from_an_estimate_to_the_report(source, capsys, tmp_path):
    method = ["--eps", "8/255", "--tasks", "{rotation: 0.25}", "--steps", "1", "--attack_tasks", "none"]
    assert main(["estimate", *source, *method, *QUICK]) == 0
    words = following(capsys)
    assert words[words.index("--eps") + 1] == "8/255"
    assert main(words) == 0
    words = following(capsys)
    chosen = ["--data", "my images", "--split", "test", "--batch_size", "8", "--out", "runs/hardened/evaluation"]
    assert words == ["evaluate", "runs/hardened", *chosen]
    assert main([*words, "--which", "clean"]) == 0
    words = following(capsys)
    assert words == ["report", "runs/hardened/evaluation", "--out", "runs/hardened/evaluation/report"]
    assert main(words) == 0
    assert "clean" in (tmp_path / "runs/hardened/evaluation/report/report.md").read_text()
    assert main(["report", "runs/hardened", "--out", "page"]) == 0  # it finds the evaluation there


@pytest.mark.slow
def test_from_pretraining_to_hardening(source, capsys, tmp_path):
    assert main(["pretrain", *source, *QUICK, "--tasks", "rotation", "--out", "runs/p"]) == 0
    words = following(capsys)
    (tmp_path / "runs/p-hardened").mkdir()
    assert main([*words, *QUICK, "--steps", "1"]) == 0
    assert (tmp_path / "runs/p-hardened/heads.safetensors").exists()
    assert main(["pretrain", *source, *QUICK, "--tasks", "rotation", "--out", "runs/p", "--resume"]) == 0
    assert "runs/p-hardened-2" in following(capsys)


VALUES = {
    "eps": 8 / 255, "lr": 0.1, "tasks": {"rotation": 0.25}, "mean": [0.5, 1 / 255, 1], "std": (1.0,), "tune": False,
    "compile": True, "max_steps": None, "seed": -3, "out": "runs/a b", "model_args": {"img_size": [32, 32]},
    "model": "timm:x", "data": "--odd", "heads": "it's", "epochs": 10, "resume": True, "steps": 4, "clip_grad": 1e-12,
}  # fmt: skip


def test_a_written_command_is_read_back_as_it_was():
    program, command, *words = shlex.split(command_of("harden", {**VALUES, "devices": {"a": 1}}))
    assert (program, command) == ("robusttune", "harden")
    request = parse([command, *words])
    read = {**vars(request.sources), **request.arguments}
    assert {name: read[name] for name in VALUES} == {**VALUES, "std": [1.0]}
    assert "--epochs" not in words  # it is at its default
    others = {name for name in options_of("harden") if name not in VALUES}
    defaults = parse(["harden", "--model", "x", "--data", "x", "--out", "x"])
    usual = {**vars(defaults.sources), **defaults.arguments}
    assert {name: read[name] for name in others & set(usual)} == {name: usual[name] for name in others & set(usual)}


SPLITS = [
    (["train", "val", "test"], "val", "test"),
    (["train", "val", "test"], None, "test"),
    (["train", "val"], "val", "val"),
    (["train", "valid"], None, "validation"),
    (["cat", "dog"], None, "validation"),
    (["cat", "dog"], "held", "held"),
]


@pytest.mark.parametrize(("folders", "judged", "split"), SPLITS)
def test_a_run_is_measured_on_images_that_have_not_chosen_its_epoch_if_there_are_some(folders, judged, split, tmp_path):
    for name in folders:
        (tmp_path / name).mkdir()
    arguments = {"out": "a", "device": "auto"}
    line = after_harden(Sources("timm:test_resnet", str(tmp_path)), arguments, judged)
    split = f" --split {split}" * (split != "validation")
    assert line == f"robusttune evaluate a --data {tmp_path}{split} --out a/evaluation"
