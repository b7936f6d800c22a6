"""The log of epochs: its file, its tracker, and what a resumed run keeps of it."""

import json

import pytest
from short_runs import hardened

from robusttune.cli.errors import worded
from robusttune.run.log import Journal, logger, quiet, tell, warn

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained


class Tracker:
    def __init__(self):
        self.logged = []

    def log(self, values, step):
        self.logged.append((values, step))


def test_facts_reach_the_file_and_the_tracker(tmp_path, caplog):
    tracker = Tracker()
    journal = Journal(tmp_path, tracker)
    facts = {"epoch": 1, "step": 8, "loss": 0.123456}
    with caplog.at_level("INFO", logger="robusttune"):
        journal.write(facts)
    assert json.loads((tmp_path / "log.jsonl").read_text()) == facts
    assert tracker.logged == [(facts, 8)]
    assert caplog.messages == ["epoch 1, step 8, loss 0.1235"]


@pytest.mark.parametrize("cut", ["", '{"epoch": 3, "st', "null"])
def test_rewind_keeps_the_first_epochs_alone(tmp_path, cut):
    journal = Journal(tmp_path)
    journal.rewind(1)  # there is no file yet
    for epoch in (1, 2, 3):
        journal.write({"epoch": epoch, "step": 4 * epoch})
    path = tmp_path / "log.jsonl"
    path.write_text(path.read_text() + cut)
    journal.rewind(2)
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 2]


def test_a_journal_without_a_folder_writes_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    journal = Journal()
    journal.write({"epoch": 1, "step": 1})
    journal.rewind(0)
    assert not list(tmp_path.iterdir())


def test_a_radius_is_logged_as_it_was_given(tmp_path, caplog):
    caplog.set_level("INFO")
    hardened(norm="linf", eps=8 / 255, tasks=None, steps=1, max_steps=2, eps_ramp=False, out=tmp_path)
    assert any("threat        linf, eps 8/255" in message for message in caplog.messages)
    assert any(", eps 8/255, " in message for message in caplog.messages)
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])["eps"] == 8 / 255


def test_the_command_line_prints_a_line_once_with_options_for_arguments(capsys):
    with worded({"finetune"}):
        warn("it guesses: pass finetune=EPOCHS", True)
        tell("it learns by finetune=5", True)
    assert capsys.readouterr().err.splitlines() == [
        "robusttune: warning: it guesses: pass --finetune EPOCHS",
        "it learns by --finetune 5",
    ]


def test_only_errors_are_logged_in_quiet(caplog):
    with quiet():
        warn("it guesses", False)
        logger.error("it fails")
    warn("it learns", False)
    assert caplog.messages == ["it fails", "it learns"]
