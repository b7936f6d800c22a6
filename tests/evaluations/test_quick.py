"""A first look: few images, two radii, and no claim from it."""

from functools import partial

import pytest
from handwritten import hardened, loader

import robusttune
from robusttune.evaluations.quick import quick
from robusttune.evaluations.sweep import sweep


def measured(which, **settings):
    return robusttune.evaluate(hardened(), loader(60), which, norm="linf", eps=0.1, progress=False, **settings)


def test_it_looks_at_few_images_and_two_radii_and_says_that_it_is_quick():
    records = measured(partial(quick, images=40))
    assert [record.images for record in records] == [40, 40, 40]
    assert [record.setting.get("eps") for record in records] == [None, 0.1, 0.2]
    assert all(record.setting["quick"] == "a first look" for record in records)
    assert records[0].value >= records[1].value >= records[2].value
    assert records == measured(partial(quick, images=40))
    assert records.facts["evaluations"]["quick"]["images forward"] <= 40 * (1 + 2 * 22)
    few = measured(partial(quick, images=13, norm="l2", eps=0.3))
    assert [(record.setting["norm"], record.setting["eps"]) for record in few[1:]] == [("l2", 0.3), ("l2", 0.6)]
    with pytest.raises(ValueError, match="at least one image"):
        measured(partial(quick, images=0))


def test_reports_draw_no_conclusion_from_it(tmp_path):
    pytest.importorskip("markdown")
    pytest.importorskip("matplotlib")
    text = robusttune.report(measured("quick"), tmp_path).read_text(encoding="utf-8")
    assert "is right on" not in text
    assert "**No verdict: accuracy was measured neither" in text
    assert "quick" in text.split("<summary>Summary")[1]
    assert "a first look" in text.split("What not to conclude")[1].split("##")[0]


def test_answers_of_evaluations_of_all_images_are_kept_beside_it():
    few = partial(quick, images=20)
    records = measured([few, partial(sweep, norms=["linf"], eps=[0.1], steps=2)])
    assert len(records.hashes) == 60
    assert [record.right is None for record in records] == [True, True, True, False]
    assert len(measured(few).hashes) == 20
