"""A trial on disk: what is read back, what an edited plan still finds, and what is refused."""

import json
from pathlib import Path

import pytest
import yaml

from robusttune.measuring.record import accuracy
from robusttune.measuring.records import Records
from robusttune.trial.arms._phase import name_and_settings
from robusttune.trial.plan import PLAN, TrialPlan
from robusttune.trial.results import (
    LOOKS,
    RECORDS,
    Trial,
    item_place,
    note_look,
    phase_place,
    place_of,
    seconds_of,
    write_power,
)

SETTING = {"norm": "linf", "eps": 0.1}
PLAIN = {
    "threats": {"linf": 0.1},
    "epochs": 2,
    "seeds": [0, 1],
    "arms": {"nothing": [], "adversarial": [{"harden": {"tasks": None}}]},
    "evaluation": {"images": 3, "items": ["clean", {"sweep": {"norms": ["linf"], "eps": [0.1]}}]},
}


PLANNED = TrialPlan.from_dict(PLAIN)


def write(folder, plan, arm, seed, correct):
    """A finished arm, with images of which so many are right."""
    place = place_of(folder, plan, arm, seed)
    for item in plan.evaluation.items:
        right = [number < correct for number in range(3)]
        facts = {"seed": 0, "evaluations": {name_and_settings(item)[0]: {"seconds": 1.0}}}
        record = accuracy(name_and_settings(item)[0], correct, 3, SETTING if "sweep" in item else {}, right=right)
        Records([record], facts=facts, hashes="abc", labels=(0, 1, 2)).save(item_place(place, plan, item) / RECORDS)
    for number, phase in enumerate(plan.arms[arm]):
        run = phase_place(place, number, phase)
        run.mkdir(parents=True)
        lines = [json.dumps({"epoch": epoch, "seconds": 2.5 * epoch}) + "\n" for epoch in (1, 2)]
        (run / "log.jsonl").write_text("".join(lines))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / PLAN).write_text(yaml.safe_dump(PLAIN, sort_keys=False))
    for arm, seed, correct in (("nothing", 0, 0), ("adversarial", 0, 2), ("adversarial", 1, 3)):
        write(tmp_path, PLANNED, arm, seed, correct)
    return tmp_path


def test_a_trial_is_read_back_and_what_does_not_train_is_there_for_every_seed(folder):
    trial = Trial.load(folder)
    found = [(each.arm, each.seed, each.seconds) for each in trial.results]
    assert found == [("nothing", 0, 0), ("nothing", 1, 0), ("adversarial", 0, 5.0), ("adversarial", 1, 5.0)]
    records = trial.results[2].records
    assert [record.evaluation for record in records] == ["clean", "sweep"]
    assert records.worst(norm="linf", eps=0.1).value == 2 / 3
    assert records.hashes == ("a", "b", "c")
    assert set(records.facts["evaluations"]) == {"clean", "sweep"}


def test_results_of_several_versions_are_noticed(folder):
    assert Trial.load(folder).mixed == ""
    for path, version in zip(
        sorted(folder.glob("arms/adversarial/*/evaluation/clean-*/records.jsonl")), "12", strict=True
    ):
        records = Records.load(path)
        records.facts["versions"] = {"torch": f"2.{version}", "timm": "1.0"}
        records.save(path)
    assert Trial.load(folder).mixed == "torch 2.1 and 2.2"


def test_an_edited_plan_keeps_what_still_fits(folder):
    def left(**edit):
        (folder / PLAN).write_text(yaml.safe_dump({**PLAIN, **edit}, sort_keys=False))
        return [(each.arm, each.seed) for each in Trial.load(folder).results]

    whole = left()
    assert left(seeds=[1, 2]) == [("nothing", 1), ("nothing", 2), ("adversarial", 1)]
    assert left(arms={"adversarial": PLAIN["arms"]["adversarial"]}) == [("adversarial", 0), ("adversarial", 1)]
    assert left(threats={"linf": 0.1, "l2": 1.0}) == whole
    assert left(threats={"l2": 1.0, "linf": 0.1}) == []
    assert left(epochs=3) == [("nothing", 0), ("nothing", 1)]
    assert left(evaluation={"images": 3, "items": ["clean"]}) == whole
    assert left(evaluation={"images": 4, "items": ["clean"]}) == []
    assert left(evaluation={"images": 3, "items": ["clean", "noise"]}) == []


def test_an_arm_without_all_its_items_has_no_result(folder):
    place = place_of(folder, PLANNED, "adversarial", 1)
    (item_place(place, PLANNED, "clean") / RECORDS).unlink()
    assert [(each.arm, each.seed) for each in Trial.load(folder).results][2:] == [("adversarial", 0)]


def test_seconds_are_summed_over_phases(tmp_path):
    phases = [{"pretrain": {}}, {"harden": {}}]
    for number, seconds in ((0, 1.5), (1, 2.0)):
        run = phase_place(tmp_path, number, phases[number])
        run.mkdir()
        (run / "log.jsonl").write_text(json.dumps({"seconds": seconds}) + "\n")
    assert seconds_of(tmp_path, phases) == 3.5
    assert seconds_of(tmp_path, []) == 0


def test_a_plan_is_read_as_it_was_written(tmp_path):
    whole = {
        "model": "Sequential 09f5",
        "data": {"training images": 256, "batch": 32},
        "budget": {"money": 20.0, "price an hour": 2.5},
        "threats": {"linf": 0.1, "l2": 1.0},
        "settings": {"steps": 2},
        "decision": {"worthwhile": 0.05},
        "rule": "Every arm starts from the same weights.",
        "estimated": {"in all": "1 s", "seconds with one seed": {}},
        **PLAIN,
    }
    plan = TrialPlan.from_dict(whole)
    plan.write(tmp_path)
    assert TrialPlan.read(tmp_path) == plan
    assert yaml.safe_load((tmp_path / PLAN).read_text()) == whole
    assert (plan.threat, plan.price, plan.seconds_allowed) == (("linf", 0.1), 2.5, 8 * 3600)
    assert (plan.untrained_arm, plan.plain_arm) == ("nothing", "adversarial")


EDITS = [
    {"evaluation": {**PLAIN["evaluation"], "images": 2}},
    {"epochs": 3},
    {"settings": {"lr": 0.1}},
    {"arms": {**PLAIN["arms"], "adversarial": [{"harden": {"tasks": None, "steps": 3}}]}},
    {"seeds": [0, 1, 2], "looks": [3]},
]


@pytest.mark.parametrize("edit", EDITS, ids=[next(iter(edit)) for edit in EDITS])
def test_a_plan_that_was_edited_is_not_the_one_that_was_looked_at_or_whose_power_is_known(edit, tmp_path):
    asked = {**PLAIN, "needs": ["attack"], "looks": [2]}
    plan = TrialPlan.from_dict(asked)
    plan.write(tmp_path)
    note_look(tmp_path, TrialPlan.read(tmp_path), 2)
    write_power(tmp_path, {"chance to find": {"5 points": "60%"}}, plan)
    trial = Trial.load(tmp_path)
    assert (trial.changed, trial.power["chance to find"]) == (False, {"5 points": "60%"})
    exploratory = {"evaluation": {**PLAIN["evaluation"], "more": ["noise"]}}
    assert not Trial.load(tmp_path, TrialPlan.from_dict({**asked, **exploratory})).changed
    edited = Trial.load(tmp_path, TrialPlan.from_dict({**asked, **edit}))
    assert (edited.changed, edited.power) == (True, None)
    looks = [{name: look[name] for name in ("seeds", "plan")} for look in json.loads((tmp_path / LOOKS).read_text())]
    (tmp_path / LOOKS).write_text(json.dumps(looks))  # as files of before
    assert not Trial.load(tmp_path).changed


def test_an_object_cannot_stand_in_a_plan(tmp_path):
    plan = TrialPlan.from_dict({**PLAIN, "settings": {"attack": object()}})
    with pytest.raises(ValueError, match="is an object, which no plan can hold: use names, numbers and lists"):
        plan.write(tmp_path)


def test_folders_keep_their_names():
    """Folders that were written before must be recognised."""
    place = place_of(Path("t"), PLANNED, "adversarial", 1)
    assert str(place) == "t/arms/adversarial/seed-1-8fdb4694"
    assert str(item_place(place, PLANNED, "clean").relative_to(place)) == "evaluation/clean-304cb942"


def test_numbers_as_people_write_them(tmp_path):
    text = "arms: {}\nseeds: [0]\nevaluation: {}\nthreats: {linf: 8/255, l2: 1e-1, l1: 012}\nmodel: timm/x 1/0\n"
    (tmp_path / PLAN).write_text(text)
    plan = TrialPlan.read(tmp_path)
    assert plan.threats == {"linf": 8 / 255, "l2": 0.1, "l1": 12}  # YAML 1.1 would read the last as 10
    assert plan.model == "timm/x 1/0"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("arms: [", "is no YAML"),
        ("arms: {}\nseeds: 3\nevaluation: {}", r"lacks seeds \(list\)"),
        ("- 1", r"lacks arms \(dict\), seeds \(list\), evaluation \(dict\)"),
    ],
)
def test_a_broken_plan_is_refused(tmp_path, text, says):
    (tmp_path / PLAN).write_text(text)
    with pytest.raises(ValueError, match=says):
        TrialPlan.read(tmp_path)


def test_what_is_no_item_and_no_plan_is_refused(tmp_path):
    with pytest.raises(ValueError, match="plan_only=True"):
        Trial.load(tmp_path)
    with pytest.raises(ValueError, match="but a name or"):
        name_and_settings({"sweep": 20})
