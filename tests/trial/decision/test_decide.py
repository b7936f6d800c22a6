"""What a trial comes to: go on, do nothing, or not enough data, and what it says beside."""

import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from simulated import ARMS, METRICS, equal, hardened, trial
from tables import unpadded

from robusttune.measuring.record import Record, accuracy
from robusttune.measuring.records import Records
from robusttune.trial.decision.decide import decide, write
from robusttune.trial.decision.findings import leaders
from robusttune.trial.decision.metrics import Metric, accuracies_of
from robusttune.trial.decision.next_stage import detectable, needed_seeds
from robusttune.trial.decision.pareto import front
from robusttune.trial.decision.verdict import Verdict
from robusttune.trial.results import Result, Trial

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
pytest.importorskip("markdown")
AT = Metric("attack", "linf", 0.1, "at", True)


def without(given, *arms):
    """A trial without some arms."""
    plan = replace(given.plan, arms={arm: phases for arm, phases in given.plan.arms.items() if arm not in arms})
    return Trial(plan, [each for each in given.results if each.arm not in arms])


@pytest.fixture(scope="module")
def gain():
    """A trial in which hardening wins, and joint pretext attacks win ten points more at and below the radius."""
    return trial(hardened(0.1), images=400)


def text_of(decision, folder):
    return write(decision, folder).read_text(encoding="utf-8")


def test_go_on(gain, tmp_path):
    decision = decide(gain)
    assert decision.verdict is Verdict.GO_ON
    assert decision.candidates[0] == "rotation_joint"
    assert set(decision.next.arms) >= {"nothing", "adversarial", "rotation_joint"}
    comparison = decision.findings.comparison("rotation_joint", "adversarial", AT)
    assert comparison.real
    assert comparison.low > 0.02
    text = text_of(decision, tmp_path)
    assert "**Go on.** In this trial rotation_joint was better than doing nothing" in text
    assert "compared with adversarial, by more than chance: rotation_joint gains on" in text
    assert not re.search(r"\b(will|guarantee|promises? that)\b", text.lower())
    assert "Nothing here promises a gain" in text


def test_without_a_difference_that_is_real_the_arm_without_pretext_task_goes_first(tmp_path):
    decision = decide(trial(hardened(), images=400))
    # Ordinary training is no worse on corruptions, but much worse under attack.
    assert decision.candidates[0] == "adversarial"
    assert "No arm with a pretext task differs from adversarial by more than chance" in text_of(decision, tmp_path)


def test_under_three_seeds_there_is_not_enough_data(tmp_path):
    decision = decide(trial(hardened(0.1), seeds=2))
    assert decision.verdict is Verdict.NOT_ENOUGH
    assert decision.findings.comparisons == ()
    assert len(decision.next.arms) == len(ARMS)
    assert decision.next.seeds >= 3
    text = text_of(decision, tmp_path)
    assert "**Not enough data to tell.** All arms share 2 seeds, and at least 3 are needed" in text
    assert ", real" not in text
    assert "not enough data |" in text


def test_one_seed_is_told_too(tmp_path):
    text = text_of(decide(trial(hardened(), seeds=1, images=100)), tmp_path)
    assert "All arms share 1 seed, and" in text
    assert "3, as the scatter is not known yet" in text


def test_equal_arms_that_scatter_are_not_enough_data():
    decision = decide(trial(equal(), images=300))
    assert decision.verdict is Verdict.NOT_ENOUGH
    assert "such a gain is not ruled out" in decision.reason


@pytest.mark.slow
def test_equal_arms_that_do_not_scatter_are_do_nothing(tmp_path):
    given = trial(equal(), images=1500, scatter=0.001, parts=(0.98, 0.0, 0.02))
    decision = decide(given, worthwhile=0.05)
    assert decision.verdict is Verdict.DO_NOTHING
    assert decision.candidates == ()
    assert decision.next is None
    text = text_of(decision, tmp_path)
    assert "**Do nothing.** None of" in text
    assert "a gain of 5 points or more on what was measured is ruled out" in text
    assert decide(given, worthwhile=0.001).verdict is Verdict.NOT_ENOUGH


def test_gains_that_cost_too_much_clean_accuracy_are_do_nothing():
    given = without(trial(hardened(), images=1000, scatter=0.004), "ordinary", "pretrained_ordinary")
    decision = decide(given, clean_loss=0.02)
    assert decision.verdict is Verdict.DO_NOTHING
    assert "every such arm loses more than the 2 points of clean accuracy that are accepted" in decision.reason
    unclear = decide(given, clean_loss=0.08)
    assert unclear.verdict is Verdict.NOT_ENOUGH
    assert "whether clean accuracy falls by more than the 8 points" in unclear.reason
    assert decide(given, clean_loss=0.2).verdict is Verdict.GO_ON


def test_a_gain_of_just_as_much_as_counts_is_one():
    def result(arm, seed, right):
        records = Records([accuracy("clean", right, 1000, right=[row < right for row in range(1000)])])
        return Result(arm, seed, Records(records, hashes=[f"{row}" for row in range(1000)]), 60.0)

    plan = replace(trial(equal(), images=10).plan, arms={arm: ARMS[arm] for arm in ("nothing", "adversarial")})
    for nothing, adversarial in ((800, 820), (700, 720)):
        right = {"nothing": nothing, "adversarial": adversarial}
        given = Trial(plan, [result(arm, seed, count) for arm, count in right.items() for seed in range(3)])
        assert decide(given, matters="clean", worthwhile=0.02).verdict is Verdict.GO_ON
        assert decide(given, matters="clean", worthwhile=0.0201).verdict is not Verdict.GO_ON


def test_only_what_matters_counts():
    given = without(trial(hardened(), images=1000), "ordinary", "pretrained_ordinary")
    assert decide(given, matters=["attack"]).verdict is Verdict.GO_ON
    assert decide(given, matters=["clean"]).verdict is Verdict.DO_NOTHING


def test_without_its_baselines_a_trial_cannot_tell(gain, tmp_path):
    decision = decide(without(gain, "nothing"))
    assert decision.verdict is Verdict.NOT_ENOUGH
    assert "no arm that does nothing" in decision.reason
    text = text_of(decide(without(gain, "adversarial")), tmp_path)
    assert "it is not known whether pretext tasks pay" in text


def test_what_has_not_ended_is_left_out_and_named(gain):
    results = [
        each for each in gain.results if each.arm != "rotation_none" and (each.arm, each.seed) != ("rotation_joint", 2)
    ]
    decision = decide(Trial(gain.plan, results))
    assert decision.measured.seeds == (0, 1)
    assert decision.measured.left_out == (
        "rotation_none has no results yet",
        "seed 2 is left out, as rotation_joint has no results with it yet",
    )


@pytest.mark.slow
def test_the_page_says_what_was_not_tested_and_what_looks_wrong(gain, tmp_path):
    bare = [metric for metric in METRICS if metric == "clean" or (metric[0] == "linf" and metric[1] <= 1)]
    rows = [METRICS.index(metric) for metric in bare]
    doubt = Record("sanity", "unbounded", 0.5, 10, (0.3, 0.7), {"ok": False, "says": "an unbounded attack fails"})

    def cut(result):
        kept = [result.records[row] for row in rows] + [doubt] * (result.arm == "adversarial")
        return replace(result, records=Records(kept, hashes=result.records.hashes))

    text = text_of(decide(Trial(gain.plan, [cut(each) for each in gain.results])), tmp_path)
    assert "before it is cleared up**: adversarial (seeds 0, 1, 2): an unbounded attack fails" in text
    assert "- Attacks in the norm l2." in text
    assert "- linf attacks above the plan's radius." in text
    assert "- Corruptions of the families noise, blur, weather, digital." in text
    assert "- Other backbones than test_resnet" in text
    assert "| `sweep` |" in unpadded(text)
    assert re.search(r"`corruptions` .*\*\*no\*\*", text)
    assert re.search(r"`clean` .*yes", text)


def test_the_worst_class_of_each_arm_has_its_name(gain, tmp_path):
    def with_worst(result):
        label = 1 + (result.seed > 0)
        worst = Record("clean", "worst-class accuracy", 0.5 - 0.1 * result.seed, 9, (0.0, 1.0), {"class": label})
        facts = {"classes": ["cat", "dog", "cow"]}
        return replace(result, records=Records([*result.records, worst], hashes=result.records.hashes, facts=facts))

    text = text_of(decide(Trial(gain.plan, [with_worst(each) for each in gain.results])), tmp_path)
    assert "fare as well as the mean? The worst class is cow in" in text
    assert "cow in adversarial (30.0%)" in text


def test_the_next_stage_costs_by_images_epochs_and_price(gain):
    paid = Trial(replace(gain.plan, budget={"money": 10.0, "price an hour": 3.6}), gain.results)
    stage, large = decide(paid).next, decide(paid, images=20_000, epochs=6).next
    seconds = {each.arm: each.seconds for each in gain.results}
    assert stage.training == pytest.approx(stage.seeds * sum(seconds[arm] for arm in stage.arms))
    assert stage.evaluation == pytest.approx(30 * (1 + stage.seeds * (len(stage.arms) - 1)))
    assert stage.money == pytest.approx((stage.training + stage.evaluation) / 1000)
    assert large.training == pytest.approx(20 * stage.training)
    assert (large.images, large.epochs) == (20_000, 6)


def test_the_seeds_asked_for_find_the_difference_8_times_in_10():
    from robusttune.trial.decision.significance import differences

    arms, comparisons, sd = 5, 20, 0.01
    seeds = needed_seeds(2 * sd**2, 0.0, 0.03, comparisons=comparisons, arms=arms)
    assert detectable(2 * sd**2, 0.0, seeds - 1, comparisons=comparisons, arms=arms) > 0.03
    values = sd * np.random.default_rng(0).standard_normal((2000, arms, seeds, 1))
    values[:, 1] += 0.03
    found = differences(values, [(0, 1)], untrained=(), images=0.0, count=1000)
    assert (found.p * comparisons < 0.05).mean() == pytest.approx(0.8, abs=0.15)
    assert needed_seeds(2 * sd**2, 0.03**2, 0.03, comparisons=comparisons, arms=arms) is None


def test_the_front_is_what_no_arm_beats(gain):
    accuracies = accuracies_of(gain)
    values = np.zeros_like(accuracies.values)
    values[3:] = 0.1  # the same, and dearer and dearer
    assert front(replace(accuracies, values=values)) == ["nothing", "pretrained_ordinary"]


def test_arms_that_differ_by_much_are_told_from_the_best(gain):
    decision = decide(gain)
    column = decision.measured.metrics.index(AT)
    names = [decision.measured.arms[arm] for arm in leaders(decision.measured, decision.findings, column)]
    assert names[0] == "rotation_joint"
    assert "nothing" not in names


def test_without_single_images_the_intervals_stand_in(gain):
    def blind(result):
        return replace(result, records=Records([replace(each, right=None) for each in result.records]))

    decision = decide(Trial(gain.plan, [blind(each) for each in gain.results]))
    assert decision.verdict is Verdict.GO_ON
    known = decide(gain).findings.comparison("rotation_joint", "adversarial", AT)
    comparison = decision.findings.comparison("rotation_joint", "adversarial", AT)
    assert comparison.value == pytest.approx(known.value)
    assert comparison.high - comparison.low > known.high - known.low


def test_bad_trials_and_settings_are_refused(gain):
    with pytest.raises(ValueError, match="two arms with one seed are needed: let it run on"):
        decide(Trial(gain.plan, gain.results[:3]))
    other = replace(gain.results[4], records=Records(gain.results[4].records, hashes=["other"] * 400))
    with pytest.raises(ValueError, match="arm 'ordinary' with seed 1 was measured on other images than arm 'nothing'"):
        decide(Trial(gain.plan, [*gain.results[:4], other, *gain.results[5:]]))
    with pytest.raises(ValueError, match="no accuracy was measured of all arms"):
        decide(Trial(gain.plan, [replace(each, records=Records()) for each in gain.results]))
    with pytest.raises(ValueError, match="worthwhile is 2, but a share of images between 0 and 1"):
        decide(gain, worthwhile=2)
    with pytest.raises(ValueError, match=r"clean_loss is -0\.1, but a share"):
        decide(gain, clean_loss=-0.1)
    with pytest.raises(ValueError, match="images is 0, but a number above 0 is needed"):
        decide(gain, images=0)
    with pytest.raises(ValueError, match=r"matters is .*, but some of clean, attack, corruption are needed"):
        decide(gain, matters=["speed"])


@pytest.mark.parametrize(
    ("module", "what"), [("scipy.stats", "testing significance"), ("matplotlib.figure", "the picture")]
)
def test_missing_packages_are_named(module, what, gain, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ImportError, match=re.escape(f"{what} needs {module.split('.')[0]}: pip install 'robusttune[poc]'")
    ):
        write(decide(gain), tmp_path)
