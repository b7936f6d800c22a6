"""The figures of the package are those that the records give, and the nearest case is the nearest."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from robusttune.training.advice import figures as module
from robusttune.training.advice.figures import Sought, differences, figures, measured, nearest, rows

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def command():
    sys.path.insert(0, str(ROOT))
    try:
        return importlib.import_module("examples.study.figures")
    finally:
        sys.path.remove(str(ROOT))


def test_the_file_is_what_the_command_makes_today(command, tmp_path):
    assert command.is_current(), "run `python -m examples.study.figures`"
    content = json.loads(module.PATH.read_text(encoding="utf-8"))
    content["default"][0]["clean"] += 0.001
    (tmp_path / "changed.json").write_text(json.dumps(content))
    assert not command.is_current(tmp_path / "changed.json")
    assert not command.is_current(tmp_path / "missing.json")


def test_a_mean_is_that_of_the_records():
    lines = [json.loads(line) for line in (ROOT / "docs/studies/search.jsonl").read_text().splitlines()]
    arm = "fast 32, gradients clipped at 1, pgd-2 at 1.25 eps late"
    clean = [
        line["clean"]
        for line in lines
        if line["run"].get("arm") == arm and line["run"]["setting"] == "cnn-linf" and "clean" in line
    ]
    (row,) = [
        each
        for each in rows("default")
        if (each["model"], each["norm"], each["eps"], each["images"], each["data"])
        == ("test_resnet", "linf", 0.1, 10_000, "Fashion-MNIST")
    ]
    assert len(clean) == row["seeds"] == 5
    assert row["clean"] == pytest.approx(sum(clean) / 5, abs=1e-4)


def test_each_study_has_a_page_and_a_program():
    for name, facts in figures()["studies"].items():
        page, _, anchor = facts["page"].partition("#")
        assert anchor.replace("-", "") in "".join(
            each for each in (ROOT / page).read_text().lower() if each.isalnum() or each == "#"
        )
        program = (
            facts["command"].split()[-2 if "-m" in facts["command"] else -1].replace(".", "/").replace("/py", ".py")
        )
        assert (ROOT / program).with_suffix(".py").exists(), program
        assert measured(name).startswith("measured by us (docs/")


GREY = Sought("linf", 8 / 255, 1, 28, patches=False, images=9_000)


@pytest.mark.parametrize(
    ("sought", "model", "data"),
    [
        (GREY, "test_resnet", "Fashion-MNIST"),
        (GREY._replace(patches=True), "test_vit", "Fashion-MNIST"),
        (GREY._replace(channels=3), "test_resnet", "photographs"),
        (GREY._replace(channels=3, patches=True), "test_resnet", "photographs"),  # colour counts before the net
        (GREY._replace(channels=3, side=96, eps=4 / 255), "tf_efficientnet_lite0", "photographs"),
        (GREY._replace(eps=0.1, images=1_000), "test_resnet", "digits"),
    ],
)
def test_the_nearest_case(sought, model, data):
    row = nearest(rows("default"), sought)
    assert (row["model"], row["data"]) == (model, data)


def test_no_case_is_near_to_large_images_or_another_norm():
    assert nearest(rows("default"), GREY._replace(side=224)) is None
    assert nearest(rows("default"), GREY._replace(norm="l1")) is None


def test_differences_are_said():
    row = nearest(rows("default"), GREY)
    assert differences(row, GREY._replace(side=32)) == ""
    told = differences(row, GREY._replace(channels=3, patches=True, eps=0.3, images=100))
    assert (
        told
        == "its images are grey, its net is a small CNN, its eps is 8/255, its images have 32 px, it has 10,000 images"
    )
