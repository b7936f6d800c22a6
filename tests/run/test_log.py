"""The log of a run, and trackers that are given it."""

import pytest
from short_runs import hardened

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained


def test_a_tracker_is_told_of_each_epoch():
    class Tracker:
        def __init__(self):
            self.told, self.finished = [], False

        def log(self, values, step):
            self.told.append((step, values["loss"]))

        def finish(self):
            self.finished = True

    tracker = Tracker()
    hardened(log=tracker, epochs=2)
    assert [step for step, _ in tracker.told] == [10, 20]
    assert tracker.finished
    with pytest.raises(ValueError, match=r"unknown log 'tensorbord': known are .*tensorboard"):
        hardened(log="tensorbord")
    with pytest.raises(ValueError, match=r"log='tensorboard' writes files: pass out="):
        hardened(log="tensorboard")
