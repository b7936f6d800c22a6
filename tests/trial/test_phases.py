"""Phases of arms: the threat that each trains against, which the plan names where the phase does not."""

from pathlib import Path

import pytest
from small_trials import loader

from robusttune.trial.data import InputSpace, divided
from robusttune.trial.phases import calls_of
from robusttune.trial.plan import TrialPlan
from robusttune.trial.results import place_of

ARMS = {
    "plain": {},
    "wide": {"eps": 0.2},
    "none": {"eps": 0},
    "round": {"norm": "l2"},
    "both": {"norm": "l2", "eps": 3},
}
PLAN = {
    "threats": {"linf": 0.1, "l2": 1.0},
    "epochs": 1,
    "seeds": [0],
    "arms": {arm: [{"harden": {"tasks": None, **settings}}] for arm, settings in ARMS.items()},
    "settings": {"preset": "standard"},
    "evaluation": {"images": 3, "items": ["clean"]},
}


def changed(**changes):
    return TrialPlan.from_dict({**PLAN, **changes})


@pytest.fixture(scope="module")
def data():
    return divided(loader(), loader(seed=1))


@pytest.mark.parametrize(
    ("arm", "threat"),
    [
        ("plain", ("linf", 0.1)),
        ("wide", ("linf", 0.2)),
        ("none", ("linf", 0)),
        ("round", ("l2", 1)),
        ("both", ("l2", 3)),
    ],
)
def test_an_arm_trains_at_the_radius_that_it_names_and_at_the_plans_without_one(arm, threat, data):
    (call,) = calls_of(changed(), arm, data, InputSpace())
    assert (call.settings["norm"], call.settings["eps"]) == threat


def test_settings_for_all_arms_may_name_a_radius(data):
    (call,) = calls_of(changed(settings={"preset": "standard", "eps": 0.3}), "plain", data, InputSpace())
    assert call.settings["eps"] == 0.3


def test_an_arm_is_trained_again_where_the_radius_that_the_plan_gives_it_was_changed():
    here, wider = Path(), changed(threats={"linf": 0.1, "l2": 2.0})
    again = [arm for arm in ARMS if place_of(here, changed(), arm, 0) != place_of(here, wider, arm, 0)]
    assert again == ["round"]


@pytest.mark.parametrize("phase", ["harden", {"harden": {"lr": 0.1}}, {"harden": {"tasks": {"rotation": 0}}}])
def test_an_arm_without_a_pretext_task_is_the_plain_one_also_where_it_does_not_say_so(phase):
    arms = {"nothing": [], "mine": [phase], "joint": [{"harden": {"tasks": {"rotation": 0.5}}}]}
    assert changed(arms=arms, needs=["attack"]).plain_arm == "mine"
    assert changed(arms=arms).plain_arm is None  # of a trial of before


def test_an_arm_whose_task_stands_in_the_settings_of_all_arms_is_not_the_plain_one():
    plan = changed(arms={"mine": ["harden"]}, needs=["attack"], settings={"preset": "standard", "tasks": "rotation"})
    assert plan.plain_arm is None
