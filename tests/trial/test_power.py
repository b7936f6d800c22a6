"""Power of a trial: it grows with seeds and images, agrees with simulated trials, and a plan that finds too little is refused."""

from dataclasses import replace

import numpy as np
import pytest
from simulated import ARMS, hardened, trial

from robusttune.trial.budget import with_seeds
from robusttune.trial.decision.confirmed import confirmed
from robusttune.trial.decision.metrics import Metric, accuracies_of
from robusttune.trial.plan import TrialPlan
from robusttune.trial.power import Scatter, chance, check_power, pilot_arms, power_of, with_images
from robusttune.trial.results import Trial

pytest.importorskip("scipy")
AT = Metric("attack", "linf", 0.1, "at", True)


def plan(seeds=8, images=2000, arms=ARMS, **changes):
    screening = {"seeds": [100, 101], "epochs": 1, "images": 1000, "items": ["clean"], "keep": 3}
    values = {
        "threats": {"linf": 0.1}, "seeds": [0], "epochs": 3, "arms": dict(arms), "needs": ["attack"], "looks": [1],
        "screening": screening, "evaluation": {"images": images, "items": ["clean"]},
    }  # fmt: skip
    return with_seeds(TrialPlan.from_dict({**values, **changes}), seeds)


SCATTER = Scatter(of_seeds=2 * 0.01**2, of_images=0.15, runs=6)


def test_the_chance_grows_with_the_difference_the_seeds_and_the_images():
    found = [chance(plan(), SCATTER, points / 100) for points in (1, 2, 3, 5)]
    assert found == sorted(found)
    assert found[0] < 0.3
    assert found[-1] > 0.9
    assert chance(plan(seeds=3), SCATTER, 0.03) < chance(plan(seeds=12), SCATTER, 0.03)
    assert chance(plan(images=300), SCATTER, 0.03) < chance(with_images(plan(), 4), SCATTER, 0.03)
    assert chance(plan(needs=["attack", "clean"]), SCATTER, 0.03) < chance(plan(), SCATTER, 0.03)
    assert chance(plan(seeds=2), SCATTER, 0.5) == 0  # too few to see any scatter


@pytest.mark.slow
def test_the_chance_agrees_with_trials_that_are_simulated():
    three = {arm: ARMS[arm] for arm in ("nothing", "ordinary", "adversarial")}
    truth = hardened()[:3]
    truth[1, 2] = truth[2, 2] + 0.03  # the middle arm is better by three points at the radius
    found, images = [], []
    for seed in range(60):
        drawn = trial(truth, seeds=5, images=800, arms=three, generator=np.random.default_rng(seed))
        given = Trial(replace(drawn.plan, needs=["attack"], looks=[5]), drawn.results)
        measured = accuracies_of(given)
        findings = confirmed(given, measured, ["nothing", "adversarial"], 0.02)
        found.append(findings.comparison("ordinary", "adversarial", AT).real)
        images.append(findings.images_part[measured.metrics.index(AT)] ** 2 * 800)
    scatter = Scatter(of_seeds=2 * 0.01**2, of_images=float(np.median(images)), runs=6)
    few = plan(seeds=5, images=800, arms=three, screening=None, looks=[5])
    assert np.mean(found) == pytest.approx(chance(replace(few, looks=[5]), scatter, 0.03), abs=0.17)


def test_the_scatter_is_that_of_the_runs_at_least():
    drawn = trial(hardened(), seeds=4, images=4000, generator=np.random.default_rng(0))
    pilot = Trial(replace(drawn.plan, needs=["attack"]), drawn.results)
    scatter = Scatter.of(pilot)
    assert 0.01 * np.sqrt(2) * 0.9 < np.sqrt(scatter.of_seeds) < 0.01 * np.sqrt(2) * 2
    assert scatter.runs == 20  # five arms against an adversary, four seeds


def test_a_pilot_that_tells_nothing_is_refused():
    low = hardened()
    low[:, 2] = 0.01
    drawn = trial(low, seeds=2, generator=np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"no arm has 5% right on linf 0\.1, so short runs tell neither"):
        Scatter.of(Trial(replace(drawn.plan, needs=["attack"]), drawn.results))
    one = Trial(replace(drawn.plan, needs=["attack"]), [each for each in drawn.results if each.seed == 0])
    with pytest.raises(ValueError, match="the pilot has 5 trained arms and 1 seeds, but two of each"):
        Scatter.of(one)


def test_the_pilot_takes_the_plain_arm_and_others_against_the_adversary():
    assert list(pilot_arms(plan())) == ["adversarial", "pretrained_adversarial", "rotation_none"]


def seconds_of(plan):
    return 100.0 * len(plan.seeds) * plan.evaluation.images / 1000


@pytest.mark.slow
def test_a_plan_that_finds_too_little_is_refused_with_what_to_change():
    check_power(plan(), SCATTER, seconds_of, "plan.yaml")
    with pytest.raises(ValueError, match=r"finds a difference of 5 points between arms in \d+% of trials") as error:
        check_power(plan(seeds=3, images=150), SCATTER, seconds_of, "plan.yaml")
    assert "any one of these finds it 8 times in 10" in str(error.value)
    assert "held-out images" in str(error.value)
    assert "pass allow_weak=True" in str(error.value)
    with pytest.raises(ValueError, match="no number of seeds and images within reach"):
        check_power(plan(seeds=3, images=150), replace(SCATTER, of_seeds=0.2), seconds_of, "plan.yaml")


@pytest.mark.slow
def test_the_plan_states_chances_and_what_each_difference_takes():
    entry = power_of(plan(seeds=4, images=500), SCATTER, seconds_of)
    assert set(entry["chance to find"]) == {"2 points", "3 points", "5 points"}
    assert "seeds" in entry["8 times in 10"]["2 points"]
    assert entry["scatter"].startswith("at most 1.4 points from seed to seed, by 6 short runs")
