"""The length of a run, and the growth of the radius."""

import json
import logging

import pytest
from short_runs import a_model, digits, hardened

from robusttune.run import distributed
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


def test_the_clock_of_the_first_process_ends_a_time_budget_in_all(monkeypatch):
    """A process that went on by its own clock would wait for the others, which have ended, until it breaks off."""
    monkeypatch.setattr(distributed, "agreed", lambda value, device: value if value in (0, 1) else 3600.0)
    seen = []
    hardened(epochs=3, time_budget=3600.0, lr=0.01, tasks=None, on_epoch=seen.append)
    assert [each["step"] for each in seen] == [1]


@pytest.mark.parametrize(("sizes", "most"), [([4, 16, 16, 16], None), ([16, 4, 4, 4], 10_000)])
def test_batches_of_several_sizes_that_are_cut_follow_the_whole_schedule(sizes, most):
    """The number of steps is not known then, and the rate must neither stay at its peak nor be 0 for most of the run."""
    images, labels = digits(sum(sizes)).tensors
    batches, seen = list(zip(images.split(sizes), labels.split(sizes), strict=True)), []
    hardened(a_model(), batches, update_batch=4, epochs=8, max_steps=most, tasks=None, steps=1, on_epoch=seen.append)
    parts = sum(size // 4 for size in sizes)
    assert [each["step"] for each in seen] == [parts * number for number in range(1, 9)]
    rates = [each["lr"] / max(each["lr"] for each in seen) for each in seen]
    assert 0.3 < rates[3] < 0.9
    assert 0.0 < rates[6] < 0.25


def test_steps_that_end_a_run_set_its_schedule():
    progress = Progress(RunLength(epochs=100, max_steps=10), batches=5, taken=7)
    assert progress.share(1, 0) == 0.7
    assert Progress(RunLength(epochs=2, max_steps=10), batches=5, taken=9).share(1, 0) == 0.9
    assert Progress(RunLength(epochs=4, max_steps=100), batches=5, taken=90).share(1, 0) == 0.9  # batches were cut


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
