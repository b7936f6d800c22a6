"""The mean and std of a checkpoint's images: those beside it, or those of the model, and a line says which."""

import json

import pytest
import timm

from robusttune.cli.normalisation import with_statistics
from robusttune.cli.options import Sources

HALF = (0.5, 0.5, 0.5)
OTHER = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}


@pytest.fixture
def model():
    return timm.create_model("test_resnet")


def taken(model, checkpoint, **arguments):
    sources = Sources("timm:test_resnet", "data", checkpoint=checkpoint, channels=3)
    found = with_statistics(arguments, sources, model, None)
    return found["mean"], found["std"]


def test_the_numbers_of_the_model_are_taken_for_a_checkpoint_and_said(model, tmp_path, capsys):
    file = str(tmp_path / "weights.pth")
    assert taken(model, file) == (HALF, HALF)
    said = capsys.readouterr().err
    assert f"{file!r} does not say how its images were normalised, so mean={HALF}" in said
    assert "of timm:test_resnet are taken: if it was trained on others, pass --mean and --std" in said
    model.pretrained_cfg = {}
    assert taken(model, file) == (None, None)
    assert "so it gets pixels on [0, 1]: if it was trained on others, pass" in capsys.readouterr().err


@pytest.mark.parametrize("facts", [OTHER, {"architecture": "resnet10t", "pretrained_cfg": OTHER}])
def test_those_in_the_configuration_beside_the_weights_come_first(model, facts, tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(facts))
    for place in (tmp_path, tmp_path / "weights.pth"):
        assert taken(model, str(place)) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
        assert "beside the weights has mean=(0.1, 0.2, 0.3) and std=(0.4, 0.5, 0.6)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "[1]",
        "{",
        '{"pretrained_cfg": 3}',
        '{"mean": [0.5], "std": [0.5]}',
        '{"mean": ["x", "y", "z"], "std": [1, 1, 1]}',
    ],
)
def test_a_configuration_without_them_is_passed_over(model, text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    assert taken(model, str(tmp_path / "weights.pth")) == (HALF, HALF)


def test_nothing_is_said_where_the_user_says_it_or_the_run_was_begun(model, capsys):
    assert taken(model, "weights.pth", mean=[0.0], std=[1.0]) == ([0.0], [1.0])
    assert taken(model, "weights.pth", resume=True) == (HALF, HALF)
    assert taken(model, None) == (HALF, HALF)
    assert capsys.readouterr().err == ""
