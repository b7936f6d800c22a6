"""The commands advise and draw_eps, on folders of real images."""

import shlex
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from robusttune.cli import main
from robusttune.cli.parser import parse

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Digits as PNG files in class folders, and fifty more in one folder."""
    digits, folder = load_digits(), tmp_path_factory.mktemp("digits")
    for row in range(300):
        place = folder / "labelled" / str(digits.target[row]) if row < 100 else folder / "more"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[row] * 15.9).astype(np.uint8)).resize((16, 16)).save(place / f"{row}.png")
    return folder


def following(shown):
    """The command in the last line, parsed."""
    (line,) = [line for line in shown.splitlines() if line.startswith("next: ")]
    return parse(shlex.split(line.removeprefix("next: "))[1:])


def test_advice_without_a_model(data, capsys):
    assert main(["advise", "--data", str(data / "labelled"), "--norm", "linf", "--budget", "2h"]) == 0
    shown = capsys.readouterr().out
    assert "1x16x16, grey" in shown
    request = following(shown)
    assert request.command == "harden"
    assert request.arguments["eps"] == pytest.approx(8 / 255)
    assert (request.arguments["norm"], request.arguments["epochs"], request.arguments["time_budget"]) == (
        "linf",
        30,
        7200,
    )
    assert (request.sources.size, request.sources.channels) == (16, 1)


def test_a_split_for_validation_that_harden_finds_is_not_asked_for(data, tmp_path, capsys):
    shutil.copytree(data / "labelled", tmp_path / "train")
    assert main(["advise", "--data", str(tmp_path), "--norm", "linf"]) == 0
    assert "pass val_loader=" in " ".join(capsys.readouterr().out.split())
    shutil.copytree(data / "labelled", tmp_path / "validation")
    assert main(["advise", "--data", str(tmp_path), "--norm", "linf"]) == 0
    assert "pass val_loader=" not in " ".join(capsys.readouterr().out.split())


def test_advice_for_few_labels_and_for_the_unsure(data, capsys):
    words = ["--data", str(data / "labelled"), "--norm", "l2", "--unlabeled", str(data / "more"), "--batch-size", "32"]
    model = ["--model", "timm:test_resnet", "--no-measure"]
    assert main(["advise", *words, *model]) == 0
    request = following(capsys.readouterr().out)
    assert request.extra["unlabeled"] == str(data / "more")
    assert (request.arguments["pretrain_epochs"], request.arguments["finetune"], request.arguments["preset"]) == (
        4,
        100,
        "fast",
    )
    assert main(["advise", *words[:4], *model, "--purpose", "unsure"]) == 0
    request = following(capsys.readouterr().out)
    assert request.command == "poc"
    assert request.extra["threats"] == {"l2": pytest.approx(0.1443, abs=1e-4)}


def test_advice_without_labels(data, capsys):
    assert main(["advise", "--data", str(data / "more"), "--norm", "linf"]) == 0
    shown = capsys.readouterr().out
    assert "'self': the model's own answers are the labels" in shown
    assert "the model must be trained on these classes already" in shown


def test_mistakes_are_one_line(data, capsys):
    words = ["advise", "--data", str(data / "labelled")]
    assert main([*words, "--eps", "8/255"]) == 1
    assert "pass --norm" in capsys.readouterr().err
    assert main([*words, "--budget", "soon"]) == 1
    assert "--budget is 'soon', but seconds, or a text such as" in capsys.readouterr().err
    assert main(["advise"]) == 2
    assert "missing: --data; for example: robusttune advise --data" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["draw_eps", "draw-eps"])
def test_a_picture_is_drawn(command, data, tmp_path, capsys):
    words = [command, "--data", str(data / "labelled"), "--out", str(tmp_path / "eps.png"), "--norm", "l2"]
    radii = ["--eps", "1"] if command == "draw_eps" else ["--eps", "0.5", "1"]
    model = [] if command == "draw_eps" else ["--model", "timm:test_resnet", "--steps", "2"]
    assert main([*words, *radii, *model]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "eps.png")
    with Image.open(tmp_path / "eps.png") as picture:
        assert picture.size == ((248, 330) if command == "draw_eps" else (348, 702))
