"""Pretext tasks in all their spellings, alike wherever tasks are taken."""

import json

import pytest
from guarded import GOOD, small_model
from short_runs import Halves, a_loader, a_model, hardened

import robusttune
from robusttune.cli.parser import parse
from robusttune.tasks import HEADS_ALONE, TASKS
from robusttune.tasks._weights import task_weights
from robusttune.training.presets import with_preset
from robusttune.training.settings import run_settings
from robusttune.trial.equal_compute import Sizes, passes_per_image
from robusttune.trial.plan_defaults import chosen_tasks

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained

SPELT = [
    (["none"], "none", None),
    (["None"], None, None),
    (["null"], ["none"], None),
    (["auto"], "auto", TASKS),
    (["rotation"], "rotation", {"rotation": 0.5}),
    (["rotation", "jigsaw"], ["rotation", "jigsaw"], {"rotation": 0.5, "jigsaw": 0.5}),
    (["patch_rotation"], ("patch_rotation",), {"patch_rotation": 0.5}),
    (["{rotation: 0.25}"], {"rotation": 0.25}, {"rotation": 0.25}),
    (["[rotation, jigsaw]"], [{"rotation": 0.5}, "jigsaw"], {"rotation": 0.5, "jigsaw": 0.5}),
    (["rotation", "{jigsaw: 1/4}"], ["rotation", {"jigsaw": 0.25}], {"rotation": 0.5, "jigsaw": 0.25}),
]


@pytest.mark.parametrize(("words", "spelt", "weights"), SPELT, ids=[" ".join(each[0]) for each in SPELT])
@pytest.mark.parametrize("command", ["harden", "estimate", "pretrain", "poc"])
def test_the_shell_and_python_spell_tasks_alike(command, words, spelt, weights):
    source = ["--model", "timm:test_resnet", "--data", "images", "--out", "runs/a"]
    read = parse([command, *source, "--tasks", *words]).arguments["tasks"]
    assert task_weights(read) == task_weights(spelt) == weights
    assert chosen_tasks(read) == weights


@pytest.mark.parametrize("spelt", ["rotation", ["rotation", "jigsaw"], "none", "auto"])
def test_a_run_a_loss_and_an_estimate_take_them(spelt, tmp_path):
    weights = task_weights(spelt, HEADS_ALONE)
    hardened(out=tmp_path, max_steps=1, steps=1, tasks=spelt)
    assert json.loads((tmp_path / "run.json").read_text())["arguments"]["tasks"] == weights
    hardened(out=tmp_path, max_steps=1, steps=1, tasks=weights, resume=True)  # the same run
    assert with_preset(run_settings([], tasks=spelt)).learning.task_weights == weights  # as estimate does
    loss = robusttune.RobustLoss(small_model(), robusttune.ThreatModel("linf", 0.1), tasks=spelt, images=GOOD[0])
    assert loss.heads.weights == (weights or {})


def test_pretraining_takes_them_and_refuses_none(tmp_path):
    heads = robusttune.pretrain(a_model(), a_loader(), tasks=["rotation"], max_steps=1, progress=False)
    assert heads.heads.weights == {"rotation": 0.5}
    with pytest.raises(ValueError, match="tasks is empty, but pre-training has nothing to learn"):
        robusttune.pretrain(a_model(), a_loader(), tasks="none", progress=False)


def test_a_task_that_is_an_object_may_stand_alone():
    task = Halves()
    assert task_weights(task) == task_weights([task]) == {task: 0.5}


def test_arms_take_them():
    sizes = Sizes(100, 10, (3, 32, 32))

    def passes(tasks):
        return passes_per_image("harden", {"tasks": tasks}, sizes, robusttune.ThreatModel("linf", 0.1))

    assert passes("none") == passes(None)
    assert passes("rotation") == passes({"rotation": 0.5}) > passes(None)


WRONG = [
    ("rotations", r"unknown task 'rotations' \(did you mean 'rotation'\?\)"),
    (["rotation", "none"], "'none' can only stand alone"),
    (["rotation", "auto"], "'auto' can only stand alone"),
    (["rotation", "rotation"], "tasks names 'rotation' twice"),
    (["rotation", None], "None can only stand alone"),
    (5, "tasks is 5, but a dict of weights is needed, such as .*None for no pretext task"),
    ([5], "tasks is 5, but"),
]


@pytest.mark.parametrize(("tasks", "says"), WRONG, ids=[str(each) for each in range(len(WRONG))])
def test_other_spellings_are_refused(tasks, says):
    with pytest.raises(ValueError, match=says):
        robusttune.harden(small_model(), [GOOD], tasks=tasks, progress=False)
    with pytest.raises(ValueError, match=says):
        task_weights(tasks)


def test_a_plan_compares_no_tasks_of_weight_0():
    with pytest.raises(ValueError, match="the weight of jigsaw is 0, which trains a head alone and leaves nothing to"):
        chosen_tasks({"rotation": 0.5, "jigsaw": 0.0})


def test_a_plan_holds_tasks_by_name():
    with pytest.raises(ValueError, match="but a plan holds tasks by name: jigsaw, patch_rotation, rotation"):
        chosen_tasks([Halves()])


def test_a_decimal_comma_is_said():
    written = parse(["harden", "--model", "m", "--data", "x", "--out", "y", "--tasks", "{rotation: 0,5}"])
    with pytest.raises(ValueError, match=r"tasks has 5 in the place of a task.*with a point"):
        task_weights(written.arguments["tasks"])
