"""The training of a model in words."""

import json

import pytest
from short_runs import a_loader, a_model, hardened

from robusttune.measuring.evaluate import evaluate
from robusttune.measuring.record import accuracy
from robusttune.measuring.records import Records
from robusttune.measuring.setting_words import facts_in_words, trained_by, training_of
from robusttune.run.about import NOTHING_HELD


def measured(**arguments):
    run = {"function": "harden", "images": 50, "weights": "w", "arguments": {"norm": "linf", "epochs": 8, **arguments}}
    return Records([accuracy("clean", 9, 10)], facts={"run": run})


@pytest.mark.parametrize("shown", [trained_by, training_of])
def test_a_run_without_an_attack_is_ordinary_training(shown):
    words = shown(measured(eps=0.0, preset="joint", attack="<function unchanged>", purpose="attacks"))
    assert words.startswith("ordinary training (harden with eps 0)")
    assert "epochs 8" in words or "8 epochs" in words
    for name in ("linf", "joint", "unchanged", "attacks"):
        assert name not in words
    assert "ordinary" not in shown(measured(eps=0.1))


def test_a_run_with_an_attack_is_shown_with_its_adversary():
    assert (
        training_of(measured(eps=0.1, preset="fast"))
        == "harden on 50 images, preset fast, norm linf, eps 0.1, epochs 8"
    )


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        (None, ""),
        ({"rotation": 0.0, "jigsaw": 0.0}, "tasks rotation and jigsaw (heads fitted afterwards), "),
        ({"rotation": 0.5, "jigsaw": 0.0}, "tasks rotation and jigsaw, attack_tasks joint, "),
    ],
)
def test_how_tasks_meet_the_attack_is_shown_where_they_do(tasks, words):
    shown = training_of(measured(tasks=tasks, attack_tasks="joint"))
    assert shown == f"harden on 50 images, norm linf, {words}epochs 8"


def test_images_without_labels_and_who_labelled_them_are_shown(tmp_path):
    model, out = a_model(), tmp_path / "run"
    more = [images for images, _ in a_loader(40, 20)]
    hardened(model, a_loader(60, 20), unlabeled_loader=more, epochs=1, out=out)
    records = evaluate(model, a_loader(40, 20), "clean", run=out, progress=False)
    assert training_of(records).startswith(
        "harden on 60 images, and 40 without labels, labelled by the model as it was before hardening, "
    )
    assert facts_in_words({"it": records})[8] == ["epoch chosen by", NOTHING_HELD]
    facts = json.loads((out / "run.json").read_text())
    del facts["about"]["held_out"], facts["labelling"]["labelled"]  # as an earlier version wrote it
    (out / "run.json").write_text(json.dumps(facts))
    records = evaluate(model, a_loader(40, 20), "clean", run=out, progress=False)
    assert facts_in_words({"it": records})[8] == ["epoch chosen by", "not known"]
    assert training_of(records).startswith("harden on images that are not named, and 40 without labels")
    alone = tmp_path / "alone"
    hardened(model, more, epochs=1, out=alone)
    records = evaluate(model, a_loader(40, 20), "clean", run=alone, progress=False)
    assert training_of(records).startswith(
        "harden on images that are not named, without labels, labelled by the model as it was before hardening, "
    )
