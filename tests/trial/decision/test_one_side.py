"""The page for those who decide: it fits on one printed side, and says what they ask."""

import re
from ast import literal_eval
from dataclasses import replace

import numpy as np
import pytest
from browser import A4, browsed, needs_browser, shown_in
from simulated import hardened, trial

from robusttune.measuring.glossary import WORDS
from robusttune.measuring.records import Records
from robusttune.run.settings import numbers
from robusttune.trial.decision.decide import decide, write
from robusttune.trial.decision.metrics import Metric
from robusttune.trial.decision.one_side import one_side
from robusttune.trial.decision.page_of_stages import next_command

pytest.importorskip("scipy")
CLASSES = [f"class of kind {number}" for number in range(4)]
PAID = {"money": 20.0, "price an hour": 0.5, "currency": "EUR", "cloud": {"price an hour": 3.0, "times as fast": 12.0}}


def with_classes(records):
    """Records of images of four classes, of which the first is always wrong under attack."""
    labels = np.arange(len(records.hashes)) % 4
    kept = [
        record
        if record.evaluation != "sweep"
        else replace(
            record, right=tuple(bool(each) and label != 0 for each, label in zip(record.right, labels, strict=True))
        )
        for record in records
    ]
    facts = {**records.facts, "classes": CLASSES}
    return Records(kept, facts=facts, hashes=records.hashes, labels=labels.tolist())


@pytest.fixture(scope="module")
def decision():
    """A trial of eight arms on two needs, with prices and names of classes."""
    simulated = trial(hardened(0.1), images=300)
    plan = replace(simulated.plan, budget=PAID)
    results = [replace(result, records=with_classes(result.records)) for result in simulated.results]
    return decide(replace(simulated, plan=plan, results=results))


def test_it_has_the_verdict_first_then_arms_classes_costs_and_what_comes_next(decision, tmp_path):
    text = one_side(decision, tmp_path)
    assert text.startswith("# What the trial says\n\n**Go on.** ")
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == [
        "What it costs to go on",
        "What was not tested",
        "Next",
        "Words",
    ]
    assert (tmp_path / "arms.png").exists()
    assert "ordinary training (augment augmix)" in text
    assert "pre-training on pretext tasks, then adversarial training" in text
    assert re.search(r"Classes that \w+ has right least often on [^:]+: class of kind 0 \(0\.0%\), class of kind", text)
    assert "robusttune.poc(" in text
    assert "None," not in text
    assert "adversarial training (with rotation, which the attack meets: joint)" in text
    assert re.search(r"On unchanged images, class of kind \d falls most: from \d+\.\d% to \d+\.\d%\.", text)


def test_a_class_that_gains_least_does_not_fall(decision, tmp_path):
    measured = decision.measured
    column, nothing = measured.metrics.index(Metric("clean")), measured.arms.index(decision.nothing)
    right = [None if each is None else each.copy() for each in measured.right]
    right[column][nothing] = 0.0  # a model whose classifier is new
    poor = replace(decision, measured=replace(measured, right=tuple(right)))
    assert re.search(
        r"On unchanged images, no class falls; class of kind \d gains least: from 0\.0% to", one_side(poor, tmp_path)
    )


def test_the_next_command_names_the_radii_of_this_trial(decision):
    threats = {"linf": 8 / 255, "l2": 0.2525907428}  # the customary radius at 28 px
    plan = replace(decision.trial.plan, threats=threats)
    command = next_command(replace(decision, trial=replace(decision.trial, plan=plan)), decision.next)
    (said,) = [line for line in command.splitlines() if "threats=" in line]
    assert numbers(literal_eval(said.strip().removeprefix("threats=").rstrip(","))) == threats


def test_costs_are_stated_for_this_machine_and_for_a_rented_one(decision, tmp_path):
    stage, text = decision.next, one_side(decision, tmp_path)
    hours = (stage.training + stage.evaluation) / 3600
    assert f"and {0.5 * hours:.2f} EUR, at 0.50 EUR an hour; on a rented one, 12 times as fast, " in text
    assert f"and {3 * hours / 12:.2f} EUR, at 3.00 EUR an hour. " in text
    assert f"Renting is cheaper by {0.25 * hours:.2f} EUR." in text
    free = replace(decision, trial=replace(decision.trial, plan=replace(decision.trial.plan, budget=None)))
    assert "In money it is not known, as `budget` in plan.yaml has no `price an hour`." in one_side(free, tmp_path)


def test_every_word_of_the_glossary_that_it_uses_is_explained(decision, tmp_path):
    text, words = one_side(decision, tmp_path).split("## Words")
    told = set(re.findall(r"\*\*(.+?)\*\*: ", words))
    assert {"accuracy", "arm", "linf", "l2", "seed", "adversarial training", "held-out"} <= told
    assert told <= set(WORDS)
    assert "AutoAttack" not in told  # the page does not have it
    assert "AutoAttack" not in text


@pytest.mark.slow
@needs_browser
def test_it_is_one_printed_side_and_nothing_runs_off_a_window(decision, tmp_path):
    write(decision, tmp_path)
    page, printed = tmp_path / "one-side.html", tmp_path / "one-side.pdf"
    browsed("--no-pdf-header-footer", f"--print-to-pdf={printed}", page.as_uri())
    assert len(re.findall(rb"/Type */Page\b", printed.read_bytes())) == 1
    browsed("--no-pdf-header-footer", f"--print-to-pdf={printed}", (tmp_path / "decision.html").as_uri())
    assert len(re.findall(rb"/Type */Page\b", printed.read_bytes())) > 1  # the count can tell
    for width in (390, A4, 1280):
        assert shown_in(page.read_text(encoding="utf-8"), width, tmp_path)["wide"] <= width
