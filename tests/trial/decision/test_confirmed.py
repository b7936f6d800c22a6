"""A trial in stages: which arms are kept, when its answer stands, and what it says."""

import inspect
import re
from dataclasses import replace

import numpy as np
import pytest
from simulated import ARMS, hardened, trial

from robusttune.trial.decision.confirmed import confirmed
from robusttune.trial.decision.decide import decide, write
from robusttune.trial.decision.metrics import Metric, accuracies_of
from robusttune.trial.decision.screened import kept_arms
from robusttune.trial.decision.sequential import standing
from robusttune.trial.decision.verdict import Verdict
from robusttune.trial.plan_defaults import chosen_arms, chosen_threats
from robusttune.trial.poc import poc
from robusttune.trial.results import Trial

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
pytest.importorskip("markdown")
AT = Metric("attack", "linf", 0.1, "at", True)
BASELINES = ["nothing", "adversarial"]


def staged(truth, *, seeds=6, looks=(3, 4, 6), images=1500, needs=("attack",), first=None, seed=0):
    """A trial with looks, and with a first stage of two seeds where `first` has the accuracies of its short runs."""
    plain = trial(truth, seeds=seeds, images=images, generator=np.random.default_rng(seed))
    plan = replace(plain.plan, needs=list(needs), looks=list(looks))
    if first is None:
        return Trial(plan, plain.results)
    short = trial(first, seeds=2, images=300, generator=np.random.default_rng(seed + 1))
    apart = [replace(each, records=renamed(each.records)) for each in short.results]
    items = ["clean", {"sweep": {"norms": ["linf"], "eps": [0.1]}}]
    screening = {"seeds": [100, 101], "epochs": 1, "images": 300, "items": items, "keep": 3}
    return Trial(replace(plan, screening=screening), plain.results, first=Trial(short.plan, apart))


def renamed(records):
    """Records of other images."""
    other = type(records)(
        records, facts=records.facts, hashes=[f"x{each}" for each in records.hashes], labels=records.labels
    )
    assert other.hashes != records.hashes
    return other


def comparison(findings, arm, baseline="adversarial"):
    return findings.comparison(arm, baseline, AT)


def test_a_clear_answer_ends_the_trial_at_an_early_look_and_an_unclear_one_does_not():
    clear = accuracies_of(staged(hardened(0.1)))
    pairs = [(2, 7)]
    seen = standing(clear.part(metrics=[AT]), pairs, [3, 4, 6], worthwhile=0.02, stop=True)
    assert seen.seeds == 3
    assert seen.real.all()
    assert seen.low[0, 0] > 0
    unclear = standing(clear.part(metrics=[AT]), [(2, 5)], [3, 4, 6], worthwhile=0.02, stop=True)
    assert unclear.seeds == 6
    assert not unclear.real.any()
    assert unclear.low[0, 0] < 0 < unclear.high[0, 0]


def test_what_was_real_at_a_look_stays_so_and_leaves_its_level_to_the_others():
    measured = accuracies_of(staged(hardened(0.1))).part(metrics=[AT])
    alone = standing(measured, [(2, 5)], [6], worthwhile=0.02)
    beside = standing(measured, [(2, 5), (0, 2), (0, 7)], [6], worthwhile=0.02)
    assert beside.real[1:].all()
    assert beside.high[0, 0] == pytest.approx(alone.high[0, 0])  # three comparisons, but two were found
    more = standing(measured, [(2, 5)], [6], worthwhile=0.02, comparisons=9)
    assert more.high[0, 0] > alone.high[0, 0]


def test_fewer_seeds_than_the_first_look_needs_are_told():
    measured = accuracies_of(staged(hardened(), seeds=2, looks=(3,))).part(metrics=[AT])
    with pytest.raises(ValueError, match="there are 2 seeds, but the first look is after 3: let it run on"):
        standing(measured, [(0, 2)], [3], worthwhile=0.02)


@pytest.mark.slow
def test_the_answer_stands_where_the_arm_that_leads_is_really_better():
    found = confirmed(given := staged(hardened(0.1)), accuracies_of(given), BASELINES, 0.02)
    assert found.answered
    assert comparison(found, "rotation_joint").real
    assert not comparison(found, "rotation_none").real
    equal = confirmed(given := staged(hardened(), images=300), accuracies_of(given), BASELINES, 0.02)
    assert not equal.answered


def test_only_the_needs_carry_the_correction_and_all_else_is_a_first_sight():
    given = staged(hardened(0.1))
    found = confirmed(given, accuracies_of(given), BASELINES, 0.02)
    assert {each.exploratory for each in found.comparisons if each.metric == AT} == {False}
    assert {each.exploratory for each in found.comparisons if each.metric != AT} == {True}


@pytest.mark.slow
def test_an_arm_that_was_chosen_on_the_same_images_is_corrected_for_all_that_were_screened():
    apart = staged(hardened(0.1), looks=(6,), first=hardened(0.1))
    same = replace(apart, first=replace(apart.first, results=[each for each in apart.results if each.seed < 2]))
    kept = replace(apart, results=[each for each in apart.results if each.arm in kept_arms(apart)])
    widths = []
    for each in (apart, same):
        whole = replace(each, results=kept.results)
        found = confirmed(whole, accuracies_of(whole), BASELINES, 0.02)
        test = comparison(found, "rotation_joint")
        widths.append(test.high - test.low)
    assert widths[1] > widths[0]


def test_the_plain_arm_and_the_best_of_the_others_go_on():
    short = hardened()
    short[4, 2], short[6, 2] = 0.9, 0.8  # pretrained_adversarial, rotation_separate at the radius
    short[7, 0] = 0.99  # rotation_joint on clean images
    assert kept_arms(staged(hardened(), first=short)) == [
        "nothing",
        "adversarial",
        "pretrained_adversarial",
        "rotation_separate",
    ]
    both = staged(hardened(), first=short, needs=("attack", "clean"))
    assert kept_arms(both) == ["nothing", "adversarial", "pretrained_adversarial", "rotation_joint"]
    assert kept_arms(staged(hardened())) == list(ARMS)  # without a first stage, all of them


def test_an_arm_that_loses_too_much_clean_accuracy_goes_on_last():
    short = hardened()
    short[4, 2], short[4, 0] = 0.9, 0.5
    given = staged(hardened(), first=short)
    costly = replace(given, plan=replace(given.plan, decision={"clean_loss": 0.1}))
    assert "pretrained_adversarial" in kept_arms(given)
    assert "pretrained_adversarial" not in kept_arms(costly)


@pytest.mark.slow
def test_the_verdict_names_the_arm_to_take_and_what_that_rests_on(tmp_path):
    short = hardened(0.1)
    given = staged(hardened(0.1), first=short)
    decision = decide(given)
    assert decision.verdict is Verdict.GO_ON
    assert decision.candidates[0] == "rotation_joint"
    assert len(decision.measured.arms) == 4
    text = write(decision, tmp_path).read_text(encoding="utf-8")
    assert "**Go on.** Take rotation_joint: it was better than doing nothing, on linf 0.1 by +6" in text
    assert "It was better than adversarial, too, on linf 0.1 by +" in text
    assert "- ordinary was screened, and did not go on." in text
    assert "What it had to answer: attack. It has 6 of 6 seeds." in text
    assert "## Screening" in text
    assert "* is significant, but exploratory" in text
    assert "Holm's correction" not in text  # how trials of before were tested


@pytest.mark.slow
def test_where_the_plain_arm_is_taken_it_says_whether_others_are_ruled_out(tmp_path):
    worse = hardened()
    worse[4:] = worse[3]
    worse[4:, 2] -= 0.02
    decision = decide(staged(worse, images=3000))
    assert decision.candidates[0] == "adversarial"
    assert "A gain of 2 points or more over it is ruled out for" in decision.reason
    unknown = decide(staged(hardened(), images=150))
    assert unknown.candidates[0] == "adversarial"
    assert "is neither shown nor ruled out" in unknown.reason


def test_with_too_few_seeds_or_nothing_to_compare_with_it_says_so():
    assert "All arms share 2 seeds, and at least 3 are needed" in decide(staged(hardened(), seeds=2, looks=(2,))).reason
    given = staged(hardened())
    arms = {arm: phases for arm, phases in given.plan.arms.items() if phases}
    without = replace(
        given, plan=replace(given.plan, arms=arms), results=[each for each in given.results if each.arm in arms]
    )
    assert "There is no arm that does nothing" in decide(without).reason


@pytest.mark.slow
def test_what_the_first_seeds_alone_were_measured_on_is_shown_and_decides_nothing(tmp_path):
    given = staged(hardened(0.1))
    few = [
        each if each.seed < 3 else replace(each, records=type(each.records)(
            [record for record in each.records if record.evaluation == "clean" or record.setting.get("eps") == 0.1],
            facts=each.records.facts, hashes=each.records.hashes, labels=each.records.labels,
        ))
        for each in given.results
    ]  # fmt: skip
    decision = decide(replace(given, results=few))
    assert [str(metric) for metric in decision.measured.metrics] == ["clean", "linf 0.1"]
    sight, findings = decision.sight
    assert len(sight.seeds) == 3
    assert all(each.exploratory for each in findings.comparisons)
    text = write(decision, tmp_path).read_text(encoding="utf-8")
    assert "## Exploratory" in text
    assert "noise corruptions" in text
    assert "l2 attacks beyond 2" in text  # not tested: beyond what was seen
    assert "Corruptions of the famil" not in text


@pytest.mark.slow
def test_a_need_that_was_not_measured_is_told():
    given = staged(hardened(), images=200, needs=("blur", "l2"))
    asked = {str(each.metric) for each in decide(given).findings.comparisons if not each.exploratory}
    assert asked == {"blur", "l2 1"}
    wrong = replace(given, plan=replace(given.plan, needs=["weather", "attack", "gone"]))
    with pytest.raises(ValueError, match="the trial must answer 'gone', but measured"):
        decide(wrong)


@pytest.mark.slow
def test_an_arm_is_taken_for_another_reason_than_being_better_and_that_is_said():
    truth = hardened(0.1)
    truth[7, 0] = 0.6  # the better arm loses thirty points of clean accuracy
    given = staged(truth)
    decision = decide(replace(given, plan=replace(given.plan, decision={"clean_loss": 0.15})))
    assert decision.candidates[0] == "adversarial"
    assert "rotation_joint gained more, but loses more clean accuracy than is accepted" in decision.reason
    assert "ruled out for rotation_joint" not in decision.reason
    truth = hardened()
    truth[2, 0] = 0.6  # here the plain arm does
    given = staged(truth)
    decision = decide(replace(given, plan=replace(given.plan, decision={"clean_loss": 0.15})))
    assert decision.candidates[0] != "adversarial"
    assert (
        "It is not known to be better than adversarial, which gains too little or loses more clean" in decision.reason
    )


def test_before_the_first_look_nothing_is_known():
    decision = decide(staged(hardened(), seeds=4, looks=(5, 6)))
    assert decision.verdict is Verdict.NOT_ENOUGH
    assert decision.reason.startswith("The trial has not reached its first look.")


def test_what_matters_is_said_by_needs():
    with pytest.raises(ValueError, match="matters= is for trials of earlier versions"):
        decide(staged(hardened()), matters="clean")


def test_not_enough_data_says_how_much_is_missing():
    truth = hardened()
    truth[1:, 2] = truth[0, 2] + 0.02
    decision = decide(staged(truth, images=200))
    assert decision.verdict is Verdict.NOT_ENOUGH
    assert "What is missing:" in decision.reason


@pytest.mark.slow
def test_the_next_stage_is_a_call_that_can_be_pasted(tmp_path):
    given = staged(hardened(0.1))
    given = replace(given, plan=replace(given.plan, decision={"worthwhile": 0.03}))
    text = write(decide(given), tmp_path).read_text(encoding="utf-8")
    (call,) = re.findall(r"```python\nrobusttune\.poc\((.*?)\)\n```", text, re.DOTALL)
    given = eval(f"dict({call.replace('model,', '', 1).replace('loader,', '', 1).strip()})")
    assert chosen_threats(given["threats"], (1, 32, 32)) == {"linf": 0.1, "l2": 1.0}
    assert list(chosen_arms(given["arms"], None)) == [next(iter(each)) for each in given["arms"]]
    assert min(given["seeds"]) > 5
    assert given["decision"] == {"worthwhile": 0.03}
    assert set(given) <= set(inspect.signature(poc).parameters)
