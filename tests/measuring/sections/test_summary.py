"""The table of all accuracies: what stands in one row was measured alike."""

import robusttune
from robusttune.measuring.record import accuracy
from robusttune.measuring.records import Records


def attacked(steps, seed=0):
    setting = {"norm": "linf", "eps": 8 / 255, "attack": "apgd", "steps": steps, "seed": seed}
    return Records([accuracy("sweep", 10 - steps // 10, 10, setting)])


def rows(runs, folder):
    """The cells of the table's rows; "–" is no accuracy."""
    text = robusttune.report(runs, folder, sections=["summary"]).read_text(encoding="utf-8")
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| linf")]


def test_attacks_of_other_strength_do_not_stand_side_by_side(tmp_path):
    alike = rows({"a": attacked(50), "b": attacked(50, seed=1)}, tmp_path)
    assert alike == [["linf eps 8/255 by apgd, 10 images", "50.0% (23.7–76.3)", "50.0% (23.7–76.3)"]]
    weak, thorough = rows({"a": attacked(10), "b": attacked(50)}, tmp_path)
    assert [weak[1:], thorough[1:]] == [["90.0% (59.6–98.2)", "–"], ["–", "50.0% (23.7–76.3)"]]
    assert "steps=10" in weak[0]
    assert "steps=50" in thorough[0]
