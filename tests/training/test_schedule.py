"""The length of a run, and the growth of the radius."""

import json
import logging

import pytest
from short_runs import a_model, hardened

from robusttune.training.schedule import Progress, radius_factor
from robusttune.training.settings import RunLength

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained


def test_budgets_end_a_run():
    seen = []
    hardened(epochs=100, max_steps=13, on_epoch=seen.append)
    assert seen[-1]["step"] == 13
    hardened(epochs=10_000, time_budget=1.0, on_epoch=seen.append)
    assert seen[-1]["lr"] < 0.01  # the schedule was fitted to the time


def test_progress_is_the_share_of_steps_or_of_seconds():
    progress = Progress(RunLength(epochs=2, accumulate=2), batches=5)
    assert progress.steps == 6
    progress.taken = 3
    assert progress.share(1, 0) == 0.5
    timed = Progress(RunLength(epochs=9, time_budget=10.0), batches=None)
    timed.elapsed = 5.0
    assert timed.share(0, 0) == 0.5
    assert not timed.over
    timed.elapsed = 10.0
    assert timed.over


def test_the_radius_grows_unless_the_start_is_robust(caplog):
    caplog.set_level(logging.INFO, "robusttune")
    model = a_model()
    seen = []
    hardened(model, epochs=6, steps=5, eps=0.6, tasks=None, on_epoch=seen.append, lr=0.1)
    assert "(growing)" in caplog.text
    assert [facts["eps"] for facts in seen][-1] == pytest.approx(0.6)
    caplog.clear()
    hardened(model, epochs=1, eps=0.1, tasks=None)
    assert "(growing)" not in caplog.text
    assert radius_factor(1.0) == 1.0


def test_a_time_budget_may_have_a_unit(tmp_path):
    hardened(epochs=1, max_steps=1, time_budget="2h", out=tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["arguments"]["time_budget"] == 7200
    with pytest.raises(ValueError, match=r"^time_budget is 'soon', but seconds, or a text such as"):
        hardened(epochs=1, time_budget="soon")
