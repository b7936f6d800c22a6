"""The staged trial: its plan, budget, arms, results and page, and that a kill costs nothing."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import wraps
from pathlib import Path

import pytest
import torch
import yaml
from small_trials import ARMS, SIDE, everything, loader, small, tried, values

import robusttune
from robusttune import plugins
from robusttune.attacks import LossOf
from robusttune.run import files
from robusttune.threat import ThreatModel
from robusttune.trial import phases
from robusttune.trial.arms._phase import name_and_settings, shares
from robusttune.trial.data import InputSpace, divided
from robusttune.trial.decision.decide import decide
from robusttune.trial.decision.metrics import Metric
from robusttune.trial.decision.verdict import Verdict
from robusttune.trial.equal_compute import Sizes, lengths, passes_per_image
from robusttune.trial.plan import PlannedEvaluation, TrialPlan
from robusttune.trial.plan_defaults import chosen_arms, chosen_threats
from robusttune.trial.plan_items import other_items
from robusttune.trial.request_checks import chosen_seeds
from robusttune.trial.results import RECORDS, Trial

SUPPORT = str(Path(__file__).parents[1] / "support")


@pytest.mark.slow
def test_all_arms_start_from_the_model_that_was_fine_tuned_once(tmp_path, caplog, monkeypatch):
    chance = "images right, which is no more than guessing"
    out, changes = tmp_path / "t", {"arms": ["nothing", "adversarial"], "seeds": 1, "finetune": 2}

    def cut(*arguments):
        save_state(*arguments)
        raise KeyboardInterrupt

    save_state = files.save_state
    monkeypatch.setattr(files, "save_state", cut)
    with pytest.raises(KeyboardInterrupt):
        tried(out, **changes)
    monkeypatch.undo()
    assert not (out / "plan.yaml").exists()
    with pytest.raises(ValueError, match="finetune' is not empty: pass resume=True"):
        tried(out, **changes)
    tried(out, resume=True, **changes)
    start, tuned = (files.load_weights(out / name) for name in ("start.safetensors", "finetune"))
    assert start.keys() == tuned.keys()
    assert all(torch.equal(start[name], tuned[name]) for name in start)
    assert not all(torch.equal(start[name], tensor) for name, tensor in small().state_dict().items())
    assert chance in caplog.text  # random labels cannot be learnt
    assert "the fine-tuning has not taught it these classes: pass a larger finetune=" in caplog.text
    assert "before all arms" not in caplog.text
    state = out / "finetune" / files.STATE
    written = state.stat().st_mtime_ns
    tried(out, resume=True, **changes)
    assert state.stat().st_mtime_ns == written  # it is not trained again
    with pytest.raises(ValueError, match="began with finetune=2, but finetune is 3 now: pass the same"):
        tried(out, resume=True, **{**changes, "finetune": 3})


def test_plan_is_written_edited_and_run_and_nothing_is_run_twice(tmp_path):
    path = tried(tmp_path / "t", plan_only=True)
    plan = yaml.safe_load(path.read_text())
    assert list(plan["arms"]) == ARMS
    assert plan["seeds"] == [0, 1]
    del plan["arms"]["rotation_joint"]
    path.write_text(yaml.safe_dump(plan, sort_keys=False))
    tried(tmp_path / "t", resume=True)
    assert {arm for arm, _, _ in values(tmp_path / "t")} == {"nothing", "adversarial"}
    assert (tmp_path / "t/decision.md").exists()
    assert (tmp_path / "t/decision.html").exists()
    written = {each: each.stat().st_mtime_ns for each in Path(tmp_path / "t").rglob("*.safetensors")}
    tried(tmp_path / "t", resume=True)
    assert written == {each: each.stat().st_mtime_ns for each in Path(tmp_path / "t").rglob("*.safetensors")}


def test_plan_over_budget_is_refused_with_what_to_drop(tmp_path):
    with pytest.raises(ValueError, match=r"the plan would take about .* but the budget is .*Edit"):
        tried(tmp_path / "t", budget=0.001)
    assert (tmp_path / "t/plan.yaml").exists()


@pytest.mark.slow
def test_killed_trial_goes_on_to_the_same_results(tmp_path):
    tried(tmp_path / "whole")
    code = f"import sys; sys.path.insert(0, {SUPPORT!r}); import small_trials; small_trials.tried(sys.argv[1])"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "killed")], env=dict(os.environ))
    started = time.monotonic()
    while not list((tmp_path / "killed").rglob(RECORDS)) and process.poll() is None:
        assert time.monotonic() - started < 60
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    tried(tmp_path / "killed", resume=True)
    assert values(tmp_path / "killed") == values(tmp_path / "whole")


def test_batches_that_are_taken_in_several_steps_cost_no_more():
    sizes, threat = Sizes(64, 10, (1, 32, 32)), ThreatModel("linf", 0.1)
    (whole,) = lengths([{"harden": {"tasks": None}}], 2, sizes, threat, {"preset": "joint"})
    (cut,) = lengths([{"harden": {"tasks": None, "update_batch": 16}}], 2, sizes, threat, {"preset": "joint"})
    assert (whole.steps, cut.steps) == (20, 80)
    assert (whole.epochs, whole.passes) == (cut.epochs, cut.passes)


def test_arms_take_equal_compute():
    sizes, threat = Sizes(32, 10, (1, SIDE, SIDE)), ThreatModel("linf", 0.1)
    settings = {"steps": 3}
    assert passes_per_image("harden", {**settings, "tasks": None}, sizes, threat) == 4
    for written in ({}, {"attack": "auto"}, {"steps": None}):  # one gradient, and two in the last quarter
        assert passes_per_image("harden", {**written, "tasks": None}, sizes, threat) == 1 + 0.75 * 1 + 0.25 * 2
    alone = {**settings, "tasks": {"rotation": 0.5, "jigsaw": 0}, "attack_tasks": "none"}
    assert passes_per_image("harden", alone, sizes, threat) == 5
    for arm in chosen_arms(None, {"rotation": 0.5}).values():
        found = lengths(arm, 4, sizes, threat, settings)
        if found:
            assert sum(each.steps * each.passes for each in found) == pytest.approx(4 * 10 * 4, rel=0.05)


@pytest.mark.parametrize(("attack", "steps"), [("pgd", 3), ("apgd", 2), ("nfgsm", None)])
def test_passes_of_an_attack_are_those_that_it_takes(attack, steps):
    taken = []

    def loss(images):
        taken.append(1.0 if images.requires_grad and torch.is_grad_enabled() else 1 / 3)
        return images.sum((1, 2, 3))

    search = plugins.configured("attacks", attack, steps=steps)
    search(LossOf(loss), torch.rand(2, 1, 4, 4), ThreatModel("linf", 0.1), generator=torch.Generator())
    settings = {"attack": attack, "tasks": None, **({} if steps is None else {"steps": steps})}
    counted = passes_per_image("harden", settings, Sizes(32, 10, (1, SIDE, SIDE)), ThreatModel("linf", 0.1))
    assert counted == pytest.approx(sum(taken) + 1)


def test_of_large_images_ordinary_training_gets_the_last_look_of_the_attack_too():
    sizes, threat = Sizes(32, 100, (3, 224, 224)), ThreatModel("linf", 4 / 255)
    found = [
        lengths(arm, 3, sizes, threat, {"preset": "standard"})[0].epochs for arm in ([{"harden": {}}], ["ordinary"])
    ]
    assert found == [3, 10]


def test_arms_follow_the_folder_and_unknown_ones_are_refused():
    files = {each.stem for each in Path(robusttune.__file__).parent.joinpath("trial", "arms").glob("[a-z]*.py")}
    assert set(plugins.names("trial.arms")) == files
    with pytest.raises(ValueError, match=r"unknown arm 'best': known are .*adversarial"):
        chosen_arms(["best"], {"rotation": 0.5})
    with pytest.raises(ValueError, match=r"unknown arm 3: known are .*adversarial"):
        chosen_arms([3], {"rotation": 0.5})


@pytest.mark.parametrize("tasks", [{}, {"rotation": 0.5, "patch_rotation": 0.5}], ids=["no tasks", "two tasks"])
@pytest.mark.parametrize("name", plugins.names("trial.arms"))
def test_arms_keep_their_contract(name, tasks):
    for arm, each in plugins.find("trial.arms", name)(tasks).items():
        assert arm.startswith((name, *tasks))
        assert shares(each) == [] if name == "nothing" else sum(shares(each)) == 1
        assert {name_and_settings(phase)[0] for phase in each} <= set(phases.KINDS)


def test_price_without_budget_is_refused(tmp_path):
    with pytest.raises(ValueError, match="price= needs budget="):
        tried(tmp_path / "t", price=2.0)
    assert not (tmp_path / "t").exists()


@pytest.mark.slow
def test_killed_in_the_second_phase_after_a_checkpoint_it_goes_on_to_the_same_records(tmp_path):
    changes = {"arms": ["nothing", "pretrained_adversarial"], "seeds": 1, "epochs": 30}
    changes["evaluation"] = ["clean", {"sweep": {"norms": ["linf"], "eps": [0.05, 0.1], "steps": 2}}]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    code = (
        f"import sys; sys.path.insert(0, {SUPPORT!r}); import small_trials; "
        f"small_trials.tried(sys.argv[1], **{changes!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(killed)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    started = time.monotonic()
    while not list(killed.glob("arms/*/*/2-harden/state.pt")):
        assert process.poll() is None
        assert time.monotonic() - started < 60
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (second,) = killed.glob("arms/*/*/2-harden")
    done = len((second / "log.jsonl").read_text().splitlines())
    began = (second / "run.json").stat().st_mtime_ns
    tried(killed, resume=True, **changes)
    assert (second / "run.json").stat().st_mtime_ns == began  # gone on with, not begun again
    tried(whole, **changes)
    (other,) = whole.glob("arms/pretrained_adversarial/*/2-harden")
    assert done < len((other / "log.jsonl").read_text().splitlines())
    assert len(everything(whole)[0][2]) > 2
    assert everything(killed) == everything(whole)


@pytest.mark.slow
def test_pretraining_sees_images_without_labels_alone(tmp_path, monkeypatch):
    seen = []
    pretrain = phases.pretrain

    @wraps(pretrain)
    def watched(model, images, **settings):
        seen.append(images)
        return pretrain(model, images, **settings)

    monkeypatch.setattr(phases, "pretrain", watched)
    more = loader(96, seed=2)
    tried(tmp_path / "t", arms=["nothing", "pretrained_ordinary"], seeds=1, unlabeled_loader=more)
    assert seen[-1] is more  # those before it measured what a step costs
    plan = yaml.safe_load((tmp_path / "t/plan.yaml").read_text())
    assert plan["data"]["unlabelled images"] == 96


def test_arms_of_ones_own_criteria_and_settings_stand_in_the_plan(tmp_path):
    own = {"mine": [{"ordinary": {"lr": 0.01}}], "nothing": []}
    out = tmp_path / "t"
    tried(out, arms=own, decision={"worthwhile": 0.05, "clean_loss": 0.1}, settings={"preset": "fast", "accumulate": 2})
    plan = yaml.safe_load((out / "plan.yaml").read_text())
    assert plan["arms"] == own
    assert plan["decision"] == {"worthwhile": 0.05, "clean_loss": 0.1}
    assert {arm for arm, _, _ in values(out)} == set(own)
    assert decide(Trial.load(out)).worthwhile == 0.05
    assert decide(Trial.load(out), worthwhile=0.1).worthwhile == 0.1


def test_radii_are_written_as_people_write_them():
    items = other_items({"linf": 0.1, "l2": 1.0}, ["attack"], ["fog"])
    assert items[0]["sweep"]["eps"] == [0.05, 0.15, 0.2]  # its radius is measured with every seed, by a stronger attack
    assert items[1]["sweep"]["eps"] == [0.5, 1.0, 1.5, 2.0]


PLANS = [
    ({"seeds": [0, 0]}, r"seeds are \[0, 0\], but different whole numbers"),
    ({"seeds": [0.5]}, r"seeds are \[0.5\], but different whole numbers"),
    ({"arms": {}}, "there are no arms: name some out of"),
    ({"arms": {"mine": "ordinary"}}, "arm 'mine' is 'ordinary', but a list of phases is needed"),
    ({"arms": {"a/b": []}}, "arm 'a/b' cannot be the name of a folder"),
    ({"arms": {"mine": [{"hardn": {}}]}}, "arm 'mine' has a phase 'hardn', but it must be one of pretrain"),
    ({"arms": {"mine": [{"harden": {"lrr": 1}}]}}, "lrr"),
    ({"arms": {1: ["harden"]}}, "arm 1 is no text: write its name in quotes"),
    ({"arms": {"mine": [{"harden": {"share": "half"}}]}}, "the share of a phase is 'half', but a number above 0"),
    ({"arms": {"mine": [{"harden": {"eps": -1}}]}}, "eps"),
    ({"seeds": [0, 2**64]}, "seeds are .*, but different whole numbers of 64 bits are needed"),
    ({"settings": ["lr"]}, r"settings is \['lr'\] in the plan, but \{name: value\} is needed"),
    ({"epochs": 0}, "epochs is 0 in the plan, but a number above 0"),
    ({"evaluation": {"images": 0, "items": ["clean"]}}, "images is 0 in the plan, but a number above 0"),
    ({"evaluation": {"images": 32, "items": []}}, "there are no evaluation items: name some out of"),
    ({"evaluation": {"images": 32, "items": ["cleann"]}}, "cleann"),
    ({"budget": {"hours": 2}}, r"budget is \{'hours': 2\} in the plan"),
    ({"threats": None}, "threats is None in the plan, but radii by norm are needed"),
    ({"threats": {"linf": -1}}, "eps"),
    ({"threats": {"linf": 0}}, "threats has a radius of 0 for linf in the plan, at which nothing is attacked"),
    ({"threats": {"Linf": 0.1}}, "threats names 'Linf' in the plan, but norms have one name there: write linf"),
    ({"settings": {"lrr": 1}}, "lrr"),
    ({"settings": {"notes": {"by": "me"}}}, "notes is set by the trial, the same for all arms: leave it out"),
    ({"decision": {"worth": 0.1}}, r"there is no 'worth' \(did you mean 'worthwhile'\?\)"),
    ({"decision": {"matters": ["speed"]}}, "matters is .*, but some of clean, attack, corruption are needed"),
    ({"decision": {"matters": ["clean"]}}, "decision names what matters, but this trial answers its needs"),
    ({"needs": None}, "needs are missing beside looks"),
    ({"evaluation": {"images": 5000, "items": ["clean"]}}, "the plan asks for 5000 held-out images, but there are 64"),
    ({"decision": {"clean_loss": 2}}, "clean_loss is 2, but a share of images between 0 and 1"),
]


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    return tried(tmp_path_factory.mktemp("plan") / "t", plan_only=True)


@pytest.mark.sample(8)
@pytest.mark.parametrize(("edit", "says"), PLANS, ids=[str(next(iter(edit.items()))) for edit, _ in PLANS])
def test_a_plan_that_does_not_fit_is_refused_in_words_before_anything_runs(edit, says, planned, tmp_path):
    out = tmp_path / "t"
    shutil.copytree(planned.parent, out)
    plan = yaml.safe_load(planned.read_text())
    (out / "plan.yaml").write_text(yaml.safe_dump({**plan, **edit}, sort_keys=False))
    with pytest.raises(ValueError, match=says):
        tried(out, resume=True)
    assert not (out / "arms").exists()


@pytest.mark.parametrize(("text", "says"), [("arms: [", "is no YAML"), ("seeds: 3", "lacks arms"), ("", "lacks arms")])
def test_a_plan_that_cannot_be_read_is_told(text, says, planned, tmp_path):
    shutil.copytree(planned.parent, tmp_path / "t")
    (tmp_path / "t/plan.yaml").write_text(text)
    with pytest.raises(ValueError, match=says):
        tried(tmp_path / "t", resume=True)


def test_seeds_are_a_number_or_a_list_and_both_are_the_same_trial(tmp_path):
    path = tried(tmp_path / "int", plan_only=True, seeds=3)
    assert yaml.safe_load(path.read_text())["seeds"] == [0, 1, 2] == chosen_seeds(range(3))
    tried(tmp_path / "int", plan_only=True, resume=True, seeds=[0, 1, 2])
    with pytest.raises(ValueError, match=r"written with other arguments \(seeds was \[0, 1, 2\] and is \[0, 1, 7\]\)"):
        tried(tmp_path / "int", plan_only=True, resume=True, seeds=[0, 1, 7])
    for seeds in (True, 2.5, "0 1"):
        with pytest.raises(ValueError, match="but their number is needed, such as 3, or a list of them"):
            tried(tmp_path / "wrong", plan_only=True, seeds=seeds)
    assert not (tmp_path / "wrong").exists()


def test_a_plan_shows_radii_as_they_were_given_and_reads_them_back(tmp_path):
    threats = chosen_threats({"linf": 8 / 255, "l2": 0.25}, (1, SIDE, SIDE))
    evaluation = PlannedEvaluation(10, ["clean"], other_items(threats, ["l2"], ["fog"]))
    path = TrialPlan(threats=threats, seeds=[0], epochs=1, arms={"nothing": []}, evaluation=evaluation).write(tmp_path)
    text = path.read_text()
    assert "threats: {linf: 8/255, l2: 0.25}" in text
    assert "eps: [4/255, 8/255, 12/255, 16/255]" in text
    assert "eps: [0.125, 0.375, 0.5]" in text
    plan = TrialPlan.read(path.parent)
    assert plan.threats == {"linf": 8 / 255, "l2": 0.25}
    assert plan.evaluation.more[0]["sweep"]["eps"] == pytest.approx([4 / 255, 8 / 255, 12 / 255, 16 / 255])
    assert str(Metric("attack", "linf", 0.03137254902)) == "linf 8/255"


STAGED = {
    "arms": ["nothing", "adversarial", "fast", "rotation_none", "ordinary"],
    "screening": None,
    "seeds": 3,
    "allow_weak": True,
}


@pytest.mark.filterwarnings("ignore:.*withstood the attack, which is no more")  # of runs this short
@pytest.mark.slow
def test_all_arms_are_screened_and_those_that_are_kept_are_confirmed_on_other_images(tmp_path, caplog):
    out, staged = tmp_path / "t", {**STAGED, "test_loader": loader(320, seed=1), "images": 150}
    staged |= {"epochs": 6, "settings": {"steps": 1, "lr": 2.0}}  # which scatters
    with pytest.raises(ValueError, match=r"finds a difference of 5 points between arms in \d+% of trials"):
        tried(out, **{**staged, "allow_weak": False})
    pilot = {each.parent.name for each in out.glob("arms/*/seed-10*")}
    assert pilot == {"adversarial", "fast", "rotation_none"}  # the others are not trained before the plan is refused
    plan = yaml.safe_load((out / "plan.yaml").read_text())
    assert plan["looks"] == [3]
    assert plan["screening"]["seeds"] == [100, 101]
    assert set(Trial.load(out).power["chance to find"]) == {"2 points", "3 points", "5 points"}
    tried(out, resume=True, **staged)
    whole = Trial.load(out)
    assert {each.arm for each in whole.first.results} == set(staged["arms"])
    kept = {each.arm for each in whole.results}
    assert len(kept) == 4
    assert {"nothing", "adversarial"} <= kept
    images = [{hash for result in each.results for hash in result.records.hashes} for each in (whole, whole.first)]
    assert all(images)
    assert not images[0] & images[1]
    (out / "decision.md").unlink()
    written = {each: each.stat().st_mtime_ns for each in out.rglob("*.jsonl")}
    tried(out, resume=True, **staged)
    assert "## Screening" in (out / "decision.md").read_text()
    assert written == {each: each.stat().st_mtime_ns for each in out.rglob("*.jsonl")}  # nothing is run twice


@pytest.mark.slow
def test_a_trial_ends_at_the_look_after_which_its_answer_stands(tmp_path, monkeypatch):
    out = tmp_path / "t"
    monkeypatch.setattr("robusttune.trial.decision.sequential.Standing.answered", lambda self, pairs: self.seeds >= 4)
    go_on = (Verdict.GO_ON, "Take it.", ("adversarial",))
    monkeypatch.setattr("robusttune.trial.decision.decide.judged", lambda *given: go_on)
    tried(out, arms=["nothing", "adversarial"], seeds=6)
    assert yaml.safe_load((out / "plan.yaml").read_text())["looks"] == [3, 4, 5, 6]
    assert {seed for arm, seed, _ in values(out) if arm != "nothing"} == {0, 1, 2, 3}
    text = (out / "decision.md").read_text()
    assert "It has 4 of 6 seeds. The answer stood before the last one." in text
    assert "is left out" not in text


@pytest.mark.slow
def test_what_is_no_need_is_measured_with_the_first_seeds_alone(tmp_path):
    out = tmp_path / "t"
    changes = {"arms": ["nothing", "adversarial"], "seeds": 4}
    plan = yaml.safe_load(tried(out, plan_only=True, **changes).read_text())
    plan["evaluation"]["more"] = [{"sweep": {"norms": ["linf"], "eps": [0.05], "steps": 1}}]
    (out / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    tried(out, resume=True, **changes)
    swept = {(each.arm, each.seed): bool(each.records.where("sweep")) for each in Trial.load(out).results}
    assert swept == {(arm, seed): seed < 3 for arm in ("nothing", "adversarial") for seed in range(4)}
    text = (out / "decision.md").read_text()
    assert "## Exploratory" in text
    assert "plan was changed" not in text
    plan["seeds"] = list(range(5))
    (out / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    tried(out, resume=True, **changes)
    assert (
        "**Do not rely on this**: the plan was changed after a look at the results" in (out / "decision.md").read_text()
    )


@pytest.mark.slow
def test_a_budget_chooses_the_seeds_and_nothing_else_does(tmp_path):
    arms = ["nothing", "adversarial"]
    first = tried(
        tmp_path / "own", arms=None, tasks=None, seeds=None, budget=1e6, screening={"seeds": [3, 4]}, plan_only=True
    )
    own = yaml.safe_load(first.read_text())
    assert not {3, 4} & set(own["seeds"])
    assert len(own["seeds"]) == 20
    free = yaml.safe_load(tried(tmp_path / "free", arms=arms, seeds=None, plan_only=True).read_text())
    assert free["seeds"] == list(range(8))
    paid = yaml.safe_load(tried(tmp_path / "paid", arms=arms, seeds=None, budget=1e6, plan_only=True).read_text())
    assert paid["seeds"] == list(range(20))
    assert paid["looks"] == [3, 9, 14, 20]
    with pytest.raises(ValueError, match="but the budget is"):
        tried(tmp_path / "poor", arms=arms, seeds=None, budget=0.001)
    assert len(yaml.safe_load((tmp_path / "poor/plan.yaml").read_text())["seeds"]) == 3


def test_a_need_that_no_item_measures_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(
        ValueError, match="must answer 'attack', but no item of the evaluation measures attacks of norm linf"
    ):
        tried(tmp_path / "t", needs="attack")
    assert not (tmp_path / "t").exists()


@pytest.mark.slow
def test_images_without_labels_are_for_self_training_or_for_pretext_tasks_alone(tmp_path):
    more = loader(96, seed=2)
    plan = yaml.safe_load(
        tried(tmp_path / "t", arms=None, tasks=None, unlabeled_loader=more, plan_only=True).read_text()
    )
    assert set(plan["arms"]) == {
        *("nothing", "adversarial", "pgd", "fast", "ordinary", "ordinary_adversarial"),
        *("self_training", "pretrained_self_training"),
    }
    data = divided(loader(), loader(seed=1), more)
    given = TrialPlan.read(tmp_path / "t")
    given = replace(given, arms={**given.arms, **chosen_arms("rotation_none", {"rotation": 0.5})})
    teachers = {
        arm: phases.calls_of(given, arm, data, InputSpace())[-1]
        for arm in ("adversarial", "self_training", "rotation_none")
    }
    assert {arm: (call.unlabeled is more, call.settings.get("teacher")) for arm, call in teachers.items()} == {
        "adversarial": (False, None), "self_training": (True, "self"), "rotation_none": (True, None)
    }  # fmt: skip
    assert "teacher" in teachers["rotation_none"].settings  # said, as the default is the model itself
    with pytest.raises(ValueError, match="an arm has a teacher, but there are no images without labels"):
        tried(tmp_path / "none", arms=["nothing", "self_training"])


@pytest.mark.slow
def test_self_training_is_an_arm_that_runs_and_the_model_as_it_came_in_labels(tmp_path, monkeypatch):
    teachers = []
    harden = phases.harden

    @wraps(harden)
    def watched(model, images, **settings):
        if isinstance(settings.get("teacher"), torch.nn.Module):
            teachers.append(settings["teacher"].state_dict())
        return harden(model, images, **settings)

    monkeypatch.setattr(phases, "harden", watched)
    tried(
        tmp_path / "t",
        arms=["nothing", "adversarial", "self_training", "pretrained_self_training"],
        unlabeled_loader=loader(96, seed=2),
    )
    assert {arm for arm, _, _ in values(tmp_path / "t")} == {
        "nothing",
        "adversarial",
        "self_training",
        "pretrained_self_training",
    }
    assert len(teachers) == 2  # after pre-training, with each seed
    for teacher in teachers:
        assert all(torch.equal(tensor, small().state_dict()[name]) for name, tensor in teacher.items())


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(20))
def test_killed_at_any_moment_of_both_stages_a_trial_goes_on_to_the_same_records(moment, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    tried(whole, **STAGED)
    stages = sorted(each.stat().st_mtime for each in whole.rglob(RECORDS))
    part = (moment + 0.5) / 20 * (stages[-1] - (whole / "plan.yaml").stat().st_mtime)
    executor = "processes:2" if moment % 2 else None
    code = (
        f"import sys; sys.path.insert(0, {SUPPORT!r}); import small_trials; "
        f"small_trials.tried(sys.argv[1], executor={executor!r}, **{STAGED!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(killed)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not (killed / "plan.yaml").exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(max(part, 0))
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.5)  # its workers end by themselves
    tried(killed, resume=True, **STAGED)
    assert everything(killed) == everything(whole)
    for folder in (whole, killed):
        assert [each.arm for each in Trial.load(folder).first.results]
    firsts = [
        [(r.arm, r.seed, [each.value for each in r.records]) for r in Trial.load(folder).first.results]
        for folder in (whole, killed)
    ]
    assert firsts[0] == firsts[1]
