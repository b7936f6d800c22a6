"""Facts of earlier runs that are not of their kind are refused in words, wherever they stand."""

import json

import pytest
from safetensors.torch import save_file

from robusttune.run import files
from robusttune.run.about import METADATA, About, read_run

GOOD = About(
    ["a", "b"], 2, (8, 8), 3, [0.5] * 3, [0.25] * 3, True, "linf", "8/255", "64 of the images", "timm:test_resnet"
)
FORGED = {
    "classes": (5, "ab", [1, 2], {"a": 1}),
    "outputs": ("2", True, 0, -1, 10**9, 1.5),
    "size": ("x", "32", 5, [8], [8, 8, 8], [-8, 8], [8, 0], [10**9, 8], ["8", "8"], [8.0, 8.0], {"0": 8}),
    "channels": ("3", 0, -3, 10**6, [3]),
    "mean": ("x", 0.5, [], [0.5, 0.5], ["0.5"], [float("nan")] * 3, [10**400] * 3, {"a": 1}),
    "std": (0.5, [0.5, 0.5], [0, 0, 0], [-1, -1, -1], [float("inf")] * 3),
    "input_known": ("no", 1, []),
    "norm": (2, ["linf"]),
    "eps": (0.03, "x", "-1", "1/0", "1e999", [1]),
    "held_out": (5, ["all"]),
    "model": (5, ["timm:test_resnet"]),
    "model_args": (5, "x", [1], [["img_size", 8]]),
    "seen_corruptions": (5, "fog", [1], {"fog": 1}),
}


def check_refused(facts, name, folder):
    (folder / "run.json").write_text(json.dumps({"run": "harden", "arguments": {}, "about": facts}))
    with pytest.raises(
        ValueError, match=rf"run\.json' cannot be read: it may be damaged .*its (mean is .*)?{name} .*must be"
    ):
        read_run(folder)
    told = json.dumps({"run": "harden", "about": facts, "purpose": None})
    save_file({}, folder / "cats.safetensors", {METADATA: told})
    with pytest.raises(
        ValueError, match=rf"cats\.safetensors' has metadata .* damaged ones \(its (mean is .*)?{name} .*must be"
    ):
        files.run_of_weights(folder / "cats.safetensors")


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_fact_about_a_model_is_refused(name, tmp_path):
    for value in FORGED[name]:
        check_refused({**GOOD.as_json(), name: value}, name, tmp_path)


def test_facts_that_are_right_or_missing_are_read(tmp_path):
    for facts in (GOOD.as_json(), About().as_json(), {}, {"mean": [0.5], "std": [0.5], "channels": 3}, {"later": 1}):
        (tmp_path / "run.json").write_text(json.dumps({"run": "harden", "arguments": {}, "about": facts}))
        about = read_run(tmp_path).about.as_json()
        assert all(about[name] == facts[name] for name in facts if name in about and name != "size")
    assert read_run(tmp_path).about == About()


def test_mean_and_std_come_together(tmp_path):
    check_refused({**GOOD.as_json(), "std": None}, "mean", tmp_path)


FORGED_RUN = {
    "run": (5, ["harden"]),
    "arguments": (5, "x", ["lr"]),
    "objects": (5, "x", [1]),
    "loaders": (-3, True, [[]]),
    "command": (5, "x", [1]),
    "data": (5, "x", [1]),
    "start": (5, []),
    "versions": (-3, [1, 2], "2.6"),
}


@pytest.mark.parametrize("name", FORGED_RUN)
def test_a_forged_fact_about_a_run_is_refused(name, tmp_path):
    for value in FORGED_RUN[name]:
        (tmp_path / "run.json").write_text(json.dumps({"run": "harden", "arguments": {}, name: value}))
        with pytest.raises(ValueError, match=rf"may be damaged .*its {name} is .*must be"):
            read_run(tmp_path)


@pytest.mark.parametrize(
    ("name", "values"), [("shape", ("x", 5, [1], [1, 3, -8, 8])), ("images", (-3, "x", 1.5, 2**63))]
)
def test_a_forged_fact_about_the_images_of_a_run_is_refused(name, values, tmp_path):
    for value in values:
        (tmp_path / "run.json").write_text(json.dumps({"run": "harden", "arguments": {}, "data": {name: value}}))
        with pytest.raises(ValueError, match=rf"may be damaged .*its {name} is .*must be"):
            read_run(tmp_path)


FORGED_COMMAND = {
    "model": (5, ["timm:test_resnet"]),
    "model_args": (5, "x", [1]),
    "channels": ("x", 0),
    "classes": ("x", [3]),
}


@pytest.mark.parametrize("name", FORGED_COMMAND)
def test_a_forged_fact_about_the_command_of_a_run_is_refused(name, tmp_path):
    for value in FORGED_COMMAND[name]:
        facts = {"run": "harden", "arguments": {}, "command": {"model": "timm:test_resnet", name: value}}
        (tmp_path / "run.json").write_text(json.dumps(facts))
        with pytest.raises(ValueError, match=rf"may be damaged .*its {name} is .*must be"):
            read_run(tmp_path)
        told = json.dumps({"run": "harden", "about": GOOD.as_json(), "purpose": None, **facts["command"]})
        save_file({}, tmp_path / "cats.safetensors", {METADATA: told})
        with pytest.raises(ValueError, match=rf"damaged ones \(its {name} is .*must be"):
            files.run_of_weights(tmp_path / "cats.safetensors")
