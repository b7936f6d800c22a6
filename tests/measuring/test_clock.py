"""The progress bar: its words, that single steps move it, and the time that is left."""

from functools import partial

import pytest
from linear_model import linear

import robusttune
from robusttune.evaluations.sweep import sweep
from robusttune.measuring import clock
from robusttune.measuring.clock import Clock, Part


@pytest.fixture
def now(monkeypatch):
    """A clock that the test sets."""
    seconds = [0.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: seconds[0])
    return seconds


def test_the_time_left_is_of_all_evaluations(now):
    with Clock([Part("one", 10, 10.0), Part("two", 10, 30.0)], show=True) as bar:
        bar.begin()
        assert bar.left() is None
        bar.add(25, backward=True)
        now[0] = 5.0
        assert bar.left() == pytest.approx(5 + 30)
        bar.add_images(10)  # those that were fooled need no more passes
        assert bar.left() == pytest.approx(0 + 15)
        now[0] = 10.0
        bar.begin()
        bar.add(100, backward=False)
        now[0] = 30.0
        assert bar.left() == pytest.approx(200 / 100 * 20)
        assert bar.bar.n == 200


def test_more_work_than_was_said_does_not_run_over():
    with Clock([Part("one", 2, 3.0), Part("own", 5)], show=True) as bar:
        for _ in range(2):
            bar.begin()
            bar.add(100, backward=True)
        assert bar.bar.n == bar.bar.total == 11


def test_without_a_length_there_is_no_time_left():
    with Clock([Part("one"), Part("two", 5, 2.0)], show=True) as bar:
        bar.begin()
        bar.add(5, backward=False)
        assert bar.left() is None
        assert bar.text() == "one"


def test_steps_of_a_single_batch_move_the_bar(monkeypatch, capsys):
    monkeypatch.setattr(clock, "INTERVAL", 0.0)
    monkeypatch.setenv("COLUMNS", "120")
    model, images, labels = linear()
    which = ["clean", partial(sweep, norms=["l2"], eps=[0.1, 0.4], steps=3)]
    records = robusttune.evaluate(model, [(images, labels)], which, norm="l2", eps=0.1)
    lines = capsys.readouterr().err.split("\r")
    assert records == robusttune.evaluate(model, [(images, labels)], which, norm="l2", eps=0.1, progress=False)
    assert any(line.rstrip().endswith(": clean") for line in lines)
    for words in ("l2 eps 0.1, step 1/3, apgd on cross-entropy", "l2 eps 0.1, step 3/3, apgd on margin"):
        assert any(line.rstrip().endswith(f" left: sweep, {words}") for line in lines)
    shares = [int(line.split("%")[0]) for line in lines if "%" in line]
    assert shares == sorted(shares)
    assert len(set(shares)) > 8
    assert shares[-1] > 90  # what images that fell did not need is counted, too
