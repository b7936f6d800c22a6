"""The line about the time that is left, which comes once, after the first steps."""

import logging
from types import SimpleNamespace

import pytest
from short_runs import hardened

from robusttune.training import display
from robusttune.training.display import time_left
from robusttune.training.schedule import Progress
from robusttune.training.settings import RunLength


def a_run(*, batches=100, held=None, taken=4, **length):
    progress = Progress(RunLength(**length), batches, taken=taken, elapsed=8.0)
    return SimpleNamespace(progress=progress, validation=SimpleNamespace(loader=held))


LEFT = [
    (a_run(epochs=1), "about 3 min 12 s left for training, at 2 s a step"),
    (
        a_run(epochs=1, held=[]),
        "about 3 min 12 s left for training, at 2 s a step, and some more to judge epochs on held-out images",
    ),
    (a_run(epochs=1, time_budget=60.0), "about 52 s left for training, at 2 s a step"),
    (a_run(batches=None, time_budget=60.0), "about 52 s left for training, at 2 s a step"),
    (a_run(batches=None), ""),  # nobody knows
    (a_run(max_steps=8), ""),  # eight seconds are not worth a line
]


@pytest.mark.parametrize(("run", "line"), LEFT, ids=[str(each) for each in range(len(LEFT))])
def test_the_time_that_is_left_is_said_where_it_is_known(run, line):
    assert time_left(run, 2.0) == line


@pytest.mark.filterwarnings("ignore:.*held-out accuracy")
def test_it_is_said_once_after_four_steps(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "robusttune")
    monkeypatch.setattr(display, "WORTH_TELLING", 0.0)
    hardened(epochs=2)
    told = [message for message in caplog.messages if message.startswith("about ")]
    assert len(told) == 1
    before_first_epoch = [message for message in caplog.messages if message.startswith(("about", "epoch"))]
    assert before_first_epoch[0] == told[0]


@pytest.mark.filterwarnings("ignore:.*held-out accuracy")
@pytest.mark.parametrize(
    ("settings", "accuracy"), [({"eps": 0.0}, ", accuracy="), ({"eps": 0.1}, ", robust accuracy=")]
)
def test_the_bar_of_ordinary_training_speaks_of_no_robustness(settings, accuracy, capsys, monkeypatch):
    monkeypatch.setattr(display, "READ_EVERY", 1)
    hardened(epochs=1, progress=True, **settings)
    bar = capsys.readouterr().err
    assert accuracy in bar
    assert ("robust" in bar) == ("robust" in accuracy)
