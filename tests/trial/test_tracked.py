"""A trial in a tracker of experiments."""

import os

import pytest
from small_trials import tried

from robusttune.measuring.tracked import metrics_of
from robusttune.trial.results import Trial


class Mine:
    """A tracker that keeps what it gets."""

    def __init__(self):
        self.logged, self.files, self.settings, self.finished = {}, [], {}, 0

    def log(self, values, step):
        self.logged |= {(name, step): value for name, value in values.items()}

    def store_init_configuration(self, values):
        self.settings |= values

    def log_artifact(self, path):
        self.files.append(os.path.basename(path))

    def finish(self):
        self.finished += 1


@pytest.mark.slow
def test_a_trial_writes_its_arms_and_its_page(tmp_path):
    tracker = Mine()
    page = tried(tmp_path / "trial", log=tracker)
    results = Trial.load(tmp_path / "trial").results
    assert len(results) == 6
    for result in results:
        for name, value in metrics_of(result.records).items():
            assert tracker.logged[f"{result.arm}/{name}", result.seed] == value
    assert tracker.files == ["plan.yaml", page.name, page.with_suffix(".html").name]
    assert tracker.settings["poc.epochs"] == "1"
    assert tracker.finished == 1


def test_a_plan_alone_is_written_too(tmp_path):
    tracker = Mine()
    tried(tmp_path / "trial", log=tracker, plan_only=True, arms=["nothing", "adversarial"])
    assert tracker.files == ["plan.yaml"]
    assert (tracker.logged, tracker.finished) == ({}, 1)
