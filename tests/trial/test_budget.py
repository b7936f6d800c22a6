"""What a plan over its budget is told to drop: each way on its own brings it under."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robusttune.trial.budget import Cost, check_budget, total_seconds, ways_under
from robusttune.trial.plan import TrialPlan

NONE = {"harden": {"tasks": None}}
ARMS = {"nothing": [], "ordinary": [{"ordinary": {}}], "adversarial": [NONE], "joint": [{"harden": {}}]}


def plan_of(seeds, epochs, images, budget=None):
    return TrialPlan.from_dict(
        {
            "arms": ARMS,
            "seeds": list(range(seeds)),
            "epochs": epochs,
            "evaluation": {"images": images, "items": ["clean"]},
            "threats": {"linf": 0.1},
            "budget": None if budget is None else {"seconds": budget},
        }
    )


def costs_with(step, image, around):
    """Costs that go up in whole steps, as those of real trainings do."""

    def costs_of(plan):
        steps = max(1, round(7 * plan.epochs))
        trained = {arm: Cost(steps * step, plan.evaluation.images * image, around) for arm in plan.arms}
        return {**trained, "nothing": Cost(0, plan.evaluation.images * image)}

    return costs_of


def followed(plan, way):
    """The plan as somebody edits it who follows the advice."""
    number = r"([\d.e+-]+)"
    if found := re.match(rf"{number} instead of \d+ seeds", way):
        return replace(plan, seeds=plan.seeds[: int(found[1])])
    if found := re.match(r"dropping the arms (.*) \(", way):
        return replace(plan, arms={arm: plan.arms[arm] for arm in plan.arms if arm not in found[1].split(", ")})
    if found := re.match(rf"{number} instead of {number} epochs", way):
        return replace(plan, epochs=float(found[1]))
    if found := re.match(r"(\d+) instead of \d+ test images", way):
        return replace(plan, evaluation=replace(plan.evaluation, images=int(found[1])))
    found = re.match(rf"{number} epochs and (\d+) test images instead of", way)
    return replace(plan, epochs=float(found[1]), evaluation=replace(plan.evaluation, images=int(found[2])))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.integers(1, 5),
    st.floats(0.5, 20),
    st.integers(20, 5000),
    st.floats(0.01, 5),
    st.floats(1e-4, 0.5),
    st.floats(0, 20),
    st.floats(0.05, 0.99),
)
def test_every_way_that_is_told_brings_the_plan_under(seeds, epochs, images, step, image, around, share):
    costs_of = costs_with(step, image, around)
    whole = total_seconds(plan_of(seeds, epochs, images), costs_of)
    plan = plan_of(seeds, epochs, images, budget=share * whole)
    ways = list(ways_under(plan, costs_of, share * whole))
    with pytest.raises(ValueError, match="the plan would take about") as refused:
        check_budget(plan, costs_of, Path("plan.yaml"))
    assert all(way in str(refused.value) for way in ways)
    for way in ways:
        edited = followed(plan, way)
        assert edited != plan
        check_budget(edited, costs_of, Path("plan.yaml"))
        assert {"nothing", "adversarial"} <= set(edited.arms)  # what all are compared to


def test_where_nothing_would_fit_it_says_so():
    with pytest.raises(ValueError, match="a tenth of its epochs and test images would still be over: raise the budget"):
        check_budget(plan_of(1, 3, 100, budget=1.0), costs_with(1.0, 1.0, 100.0), Path("plan.yaml"))


def test_without_a_budget_nothing_is_refused():
    check_budget(plan_of(3, 3, 100), costs_with(1.0, 1.0, math.inf), Path("plan.yaml"))
