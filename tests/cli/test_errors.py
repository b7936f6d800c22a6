"""Messages of the library, in the words of the options."""

import logging

import numpy as np
import pytest
from PIL import Image

from robusttune.cli import main
from robusttune.cli.errors import in_options, worded
from robusttune.cli.options import options_of
from robusttune.run.log import tell
from robusttune.trial.plan_defaults import chosen_budget

# timm's data sets leave the files that they have read to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Twelve images of two classes."""
    for row in range(12):
        place = tmp_path / "images" / "train" / "ab"[row % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32), 20 * row, np.uint8)).save(place / f"{row}.png")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/note.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    named = ["--model", "timm:test_resnet", "--data", "images", "--size", "32", "--channels", "1"]
    return [*named, "--out", "new", "--no-progress"]


REAL = [
    (["harden", "--epochs", "0"], "--epochs is 0, but a whole number from 1 to 100,000 is needed ("),
    (["harden", "--max-steps", "0"], "--max_steps is 0, but a whole number of at least 1 is needed, or null for the"),
    (["harden", "--eps", "8"], "--eps is 8.0 for linf, but pixels span [0, 1]: did you mean 8/255?"),
    (
        ["harden", "--out", "full"],
        "--out 'full' is not empty: pass --resume true to resume the run in it, or name another",
    ),
    (["harden", "--objective", "foo"], "unknown objective 'foo': known are adversarial, mart, trades (--debug"),
    (["harden", "--checkpointing", "--awp", "0.1"], "which --awp 0.1 does not allow"),
    (
        ["harden", "--min-clean", "0.5"],
        "--min_clean chooses among epochs by held-out images, but there are none: pass --val_split (",
    ),
    (["harden", "--classifier", "nope"], "no layer 'nope' ran in the forward: pass --classifier with its name"),
    (["harden", "--mean", "0.5"], "--mean and --std come together: pass both of your Normalize"),
    (
        ["harden", "--mean", "0,5", "--std", "0,5"],
        "--mean is '0,5', but a number for each channel is needed, such as 0.5 0.5 0.5",
    ),
    (["harden", "--compile", "maybe"], "--compile is 'maybe', but it must be true, false or 'auto'"),
    (["pretrain", "--tasks", "none"], "--tasks is empty, but pre-training has nothing to learn"),
    (
        ["pretrain", "--tasks", "{rotation: 0}"],
        "is 0, but pre-training has nothing to learn",
    ),
    (
        ["evaluate", "--subset", "0", "--split", "train", "--untrained"],
        "--subset is 0, but a whole number of at least 1 is needed, or null",
    ),
    (
        ["poc", "--price", "3", "--test_split", "train"],
        "--price needs --budget: pass the money that the trial may cost, too",
    ),
]


@pytest.mark.parametrize(("words", "says"), REAL, ids=[f"{number}" for number in range(len(REAL))])
def test_real_errors_speak_of_options(words, says, source, capsys):
    assert main([words[0], *source, *words[1:]]) == 1
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert says in line


OF_THE_LIBRARY = [
    ("val_loader: images have 3 channels, but 1 is needed", "--val_split: images have 3 channels, but 1 is needed"),
    ("pixels, normalised (mean=(0.5), std=(0.5))", "pixels, normalised (mean=(0.5), std=(0.5))"),
    ("pass test_loader=, or leave it out", "pass --test_split, or leave it out"),
    ("another out= to start afresh, or init_from= to start", "another --out to start afresh, or --checkpoint to start"),
    ("epochs are judged on val_loader", "epochs are judged on --val_split"),
    ("pass mean=… and std=… of your Normalize", "pass --mean … and --std … of your Normalize"),
    (
        "none of them were held out: pass val_loader= with labelled images that are not trained on",
        "none of them were held out: put labelled images that are not trained on into a folder validation beside train, or name "
        "their split with --val_split",
    ),
    ("by loader.dataset.classes there are 3", "by the folders of --data there are 3"),
    (
        "drop it with tasks={'jigsaw': 0.0, 'rotation': 0.5}. It",
        "drop it with --tasks '{jigsaw: 0.0, rotation: 0.5}'. It",
    ),
    ("'epochs=3 None' is not there: the model is None", "'epochs=3 None' is not there: the model is null"),
]


@pytest.mark.parametrize(
    ("message", "says"), OF_THE_LIBRARY, ids=[f"{number}" for number in range(len(OF_THE_LIBRARY))]
)
def test_arguments_become_options(message, says):
    assert in_options(message, options_of("harden")) == says


def test_lines_and_warnings_speak_of_options_only_inside_a_command(capsys):
    with worded({"epochs"}):
        tell("pass epochs=5", progress=True)
        logging.getLogger("robusttune").warning("pass val_loader= too")
    tell("pass epochs=5", progress=True)
    said = capsys.readouterr().err.splitlines()
    assert said == ["pass --epochs 5", "robusttune: warning: pass --val_split too", "pass epochs=5"]


def test_in_python_the_same_error_speaks_of_arguments():
    with pytest.raises(ValueError, match=r"^price= needs budget=: pass the money"):
        chosen_budget(None, 3)


def test_a_resume_with_other_arguments_says_only_that(source, capsys, tmp_path):
    quick = ["--tasks", "none", "--steps", "1", "--batch-size", "4", "--eps", "8/255"]
    assert main(["harden", *source, *quick, "--epochs", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "hardened: new/model.safetensors"
    assert main(["harden", *source, *quick, "--epochs", "1", "--resume", "--seed", "4", "--lr", "0.1"]) == 1
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "note" not in each]
    assert line == (
        "robusttune: error: 'new' holds a run with other arguments (lr was null and is 0.1, seed was 0 and is 4): pass the "
        "same ones to resume it, another --out to start afresh, or --checkpoint to start from its weights (--debug shows where)"
    )
    assert main(["harden", *source, *quick, "--epochs", "2", "--resume", "--progress"]) == 0
    assert "the run had finished after 1 epoch and 3 steps, and goes on to 2 epochs" in capsys.readouterr().err
    assert len((tmp_path / "new/log.jsonl").read_text().splitlines()) == 2
