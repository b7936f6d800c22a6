"""The training of a model in words."""

import pytest

from robusttune.measuring.record import accuracy
from robusttune.measuring.records import Records
from robusttune.measuring.setting_words import trained_by, training_of


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
