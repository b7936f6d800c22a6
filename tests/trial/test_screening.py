"""The stages of a plan: their defaults, and what is refused before anything is trained."""

from dataclasses import replace

import pytest
from simulated import ARMS

from robusttune.trial.plan import PlannedEvaluation, TrialPlan
from robusttune.trial.screening import Screening, check_stages, looks_for, screening_of

SCREENING = {"seeds": [100, 101], "epochs": 1, "images": 50, "items": ["clean"], "keep": 3}


def plan(**changes):
    values = {
        "threats": {"linf": 0.1, "l2": 1.0}, "seeds": [0, 1, 2, 3], "epochs": 3, "arms": ARMS, "needs": ["clean"], "looks": [3, 4],
        "screening": SCREENING, "evaluation": {"images": 100, "items": ["clean"], "more": [{"sweep": {"norms": ["l2"]}}]},
    }  # fmt: skip
    return TrialPlan.from_dict({**values, **changes})


def test_a_plan_of_stages_is_written_and_read_back(tmp_path):
    whole = plan()
    whole.check()
    whole.write(tmp_path)
    assert TrialPlan.read(tmp_path) == whole
    swept = plan(screening={**SCREENING, "items": ["clean", {"sweep": {"eps": [8 / 255]}}]})
    assert "eps: [8/255]" in swept.write(tmp_path).read_text()
    assert TrialPlan.read(tmp_path) == swept
    first = screening_of(whole)
    assert (first.seeds, first.epochs, first.evaluation) == ([100, 101], 1, PlannedEvaluation(50, ["clean"]))
    assert screening_of(first) is None
    assert whole.items_with(2) == ["clean", {"sweep": {"norms": ["l2"]}}]
    assert whole.items_with(3) == ["clean"]


@pytest.mark.parametrize("count", range(1, 21))
def test_looks_rise_to_the_last_seed(count):
    looks = looks_for(count)
    assert looks == sorted(set(looks))
    assert looks[-1] == count
    assert len(looks) <= 4
    assert looks[0] >= min(count, 3)


REFUSED = [
    ({"looks": [3, 3, 4]}, r"looks are \[3, 3, 4\], but one to 4 rising numbers"),
    ({"looks": None}, "looks are missing beside screening"),
    ({"screening": {**SCREENING, "seeds": [1, 100]}}, "the seeds 1 are of the screening, too"),
    ({"screening": {**SCREENING, "keep": 9}}, "screening keeps 9 arms, but 2 to 4 are needed"),
    ({"screening": {**SCREENING, "images": 0}}, "images of the screening is 0, but a whole number above 0"),
    ({"screening": {"seeds": [100]}}, "screening lacks epochs, images, items"),
    ({"screening": {**SCREENING, "keeps": 3}}, r"did you mean 'keep'"),
    ({"screening": {**SCREENING, "seeds": 2}}, "seeds of the screening are 2, but different whole numbers"),
    ({"screening": {**SCREENING, "seeds": [100, 100]}}, r"seeds of the screening are \[100, 100\], but different"),
    ({"looks": [1, 4]}, "the first look is after 1 seeds, but 3 are needed"),
    ({"needs": None}, "needs are missing beside looks"),
    ({"needs": ["attacks"]}, r"needs are \['attacks'\] \(did you mean 'attack'\?\)"),
    (
        {"needs": ["attack"]},
        "must answer 'attack', but no item of the screening measures attacks of norm linf at its radius",
    ),
    ({"needs": ["noise"], "screening": None}, "must answer 'noise', but no item of the evaluation measures noise"),
    (
        {
            "needs": ["l2"],
            "screening": None,
            "evaluation": {"images": 9, "items": [{"strong": {"norm": "l2", "eps": 0.5}}]},
        },
        "must answer 'l2', but no item of the evaluation measures",
    ),
]


@pytest.mark.parametrize(("changes", "says"), REFUSED, ids=[str(each) for each in range(len(REFUSED))])
def test_stages_that_do_not_fit_are_refused_in_words(changes, says):
    with pytest.raises(ValueError, match=says):
        plan(**changes).check()


def test_looks_follow_the_seeds_of_a_plan_that_was_edited():
    assert plan(seeds=list(range(8))).looks == [3, 5, 6, 8]
    with pytest.raises(ValueError, match="the last look is after 3 seeds, but there are 4"):
        replace(plan(), looks=[3]).check()


def test_needs_that_are_measured_are_accepted():
    items = [{"strong": {"norm": "Linf"}}, {"sweep": {"eps": [0.5, 1.0]}}, {"corruptions": {"names": ["fog"]}}]
    for item in ("strong", "autoattack", "sweep"):  # of the training norm, and of others at their customary radii
        check_stages(plan(needs=["attack"], screening=None, evaluation={"images": 9, "items": [item]}))
        with pytest.raises(ValueError, match="must answer 'l2'"):
            check_stages(plan(needs=["l2"], screening=None, evaluation={"images": 9, "items": [item]}))
    given = plan(needs=["attack", "l2", "weather"], screening=None, evaluation={"images": 9, "items": items})
    check_stages(given)
    with pytest.raises(ValueError, match="must answer 'blur'"):
        check_stages(replace(given, needs=["blur"]))
    assert Screening.of(SCREENING).as_dict() == SCREENING
