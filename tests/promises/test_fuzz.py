"""Calls of every public function with values that do not fit end in words, and change nothing."""

import signal
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from fuzzing import CALLS, HUGE, JUNK, Grumbling, Raw, odd_calls, outcome, parameters, quietly, raw_group
from hypothesis import HealthCheck, given, settings
from torch import nn

from robusttune import ThreatModel

ENDS = ("works", "refused", "stopped", "raw")
counted, raw = Counter(), {}


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch, caplog):
    """Values such as "nonsense" are paths, too; warnings about models that know nothing are not kept."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level("CRITICAL", "robusttune")


def fuzz(calls):
    counted.clear()
    raw.clear()

    @settings(
        max_examples=calls,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        database=None,
    )
    @given(odd_calls())
    def test(call):
        name, odd = call
        try:
            counted[name, outcome(name, odd)] += 1
        except Raw as error:  # counted, so that one run tells all
            counted[name, "raw"] += 1
            raw.setdefault(str(error).split(": '")[0], (str(error), odd))

    test()
    assert sum(counted.values()) >= calls


@pytest.mark.parametrize("name", sorted(CALLS))
def test_what_fits_works_or_is_refused_at_the_end_of_all_checks(name):
    last = {"load": "holds no run.json", "replay": "holds no run.json", "poc": "is not empty"}
    assert last.get(name, "works") in outcome(name, {})


def test_500_odd_calls_end_in_words():
    fuzz(500)
    assert raw == {}
    assert sum(count for (_, end), count in counted.items() if end == "refused") > 400
    assert {name for name, _ in counted} == set(CALLS)


@pytest.mark.slow
def test_10_000_odd_calls_end_in_words(capsys):
    fuzz(10_000)
    with capsys.disabled():
        for name in sorted(CALLS):
            print(f"\n{name:12}", *(f"{end} {counted[name, end]:6,}" for end in ENDS), end="")
        for text, odd in raw.values():
            print(f"\n{text}\n    {str(odd)[:300]}", end="")
    assert raw == {}
    assert all(counted[name, "refused"] > 100 for name in CALLS)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CALLS))
def test_each_odd_value_for_each_argument_ends_in_words(name, capsys):
    ends, found = Counter(), {}
    for key in parameters(name):
        for make in JUNK + HUGE:
            odd = {key: quietly(make)}
            try:
                ends[outcome(name, odd)] += 1
            except Raw as error:
                found.setdefault(str(error).split(": '")[0], (str(error), odd))
    with capsys.disabled():
        print(f"\n{name:12} {dict(ends)}", end="")
    assert found == {}
    assert ends["refused"] > 100


@pytest.mark.parametrize(
    ("name", "odd", "match"),
    [
        ("harden", {"criterion": nn.Linear(2, 2, device="meta")}, "criterion is on the meta device"),
        ("harden", {"attack": Grumbling()}, "attack is .*"),
        ("harden", {"augment": Grumbling()}, "unknown augment .*: known are auto, none"),
        (
            "harden",
            {"micro_batch": 2**63},
            "micro_batch is 9223372036854775808, but a whole number of 64 bits is needed, or None",
        ),
        ("harden", {"update_batch": Grumbling()}, "update_batch is .*"),
        (
            "estimate",
            {"devices": {"own": 10**400}},
            "the price of 'own' is 1000.*, but a finite number of at least 0 an hour",
        ),
        (
            "evaluate",
            {"which": len},
            "the evaluation len cannot be called with a Subject alone: object of type 'Subject' has no",
        ),
        ("pretrain", {"tasks": {"rotation": 10**400}}, "the weight of task 'rotation' is 1000"),
        ("pretrain", {"tasks": {"rotation": torch.rand(3)}}, "the weight of task 'rotation' is tensor"),
        ("poc", {"tasks": {"rotation": torch.rand(3)}}, "the weight of task 'rotation' is tensor"),
        ("poc", {"seeds": nn.ModuleList()}, "seeds is .*, but their number is needed"),
        ("poc", {"epochs": Fraction(1, 3)}, "out='full' is not empty"),
        (
            "pretrain",
            {"model": nn.Linear(2, 2)},
            "the model cannot take the first images, of shape .C, H, W. = .3, 8, 8.",
        ),
        ("poc", {"arms": {"mine": -3}}, "arm 'mine' is -3, but a list of phases is needed"),
        ("RobustLoss", {"objective": None}, "objective=None has only the pretext losses: leave the labels out"),
        (
            "RobustLoss",
            {"tasks": {"rotation": 10**400}},
            "the weight of task 'rotation' is 1000.*, but a number of at least 0",
        ),
        ("RobustLoss", {"tasks": Grumbling()}, "tasks is .*, but a dict of weights is needed"),
        (
            "RobustLoss",
            {"teacher": "ü" * 300},
            "teacher is .*, which cannot be looked at .File name too long.: name another",
        ),
        (
            "Monitor",
            {"model": "ü" * 300},
            "model is .*, which cannot be looked at .File name too long.: name another path",
        ),
        ("Monitor", {"log": ""}, "log is '', which is a folder: name a file, such as runs/monitor.jsonl"),
        ("Monitor", {"batch": torch.empty(2, 3, 8, 8, device="meta")}, "images are on the meta device"),
        (
            "RobustLoss",
            {"objective": "trades", "step_size": 10**400},
            "step_size is 1000.*, but a number above 0, and at most 1,000,000, is needed",
        ),
        ("RobustLoss", {"mean": 10**400, "std": 0.5}, "mean is 1000.*, but a number for each channel is needed"),
        ("evaluate", {"device": -(2**70)}, "device=-1180591620717411303424 is no device: pass 'auto'"),
        ("harden", {"finetune": 1, "model": 0.0}, "the model is a float, but a torch.nn.Module is needed"),
        ("report", {"assurance": torch.rand(2).to_sparse()}, "assurance is .*, but True or False is needed"),
    ],
)
def test_what_the_fuzzer_found(name, odd, match):
    call = CALLS[name]()
    with pytest.raises(ValueError, match=match):
        call.function(**call.good | odd)
    assert outcome(name, odd) == "refused"


@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("Monitor", {"false_alarms": Fraction(1, 3)}),
        ("Monitor", {"seed": np.int64(1)}),
        ("RobustLoss", {"seed": np.int64(1)}),
        ("RobustLoss", {"awp": Fraction(1, 3)}),
        ("harden", {"lr": 2**70, "max_steps": 1}),
        ("pretrain", {"weight_decay": 2**70}),
        ("RobustLoss", {"step_size": 10**6}),
    ],
    ids=str,
)
def test_numbers_of_other_libraries_work(name, odd):
    assert outcome(name, odd) == "works"


def test_a_call_that_does_not_end_is_stopped_and_leaves_nothing(monkeypatch):
    monkeypatch.setattr(signal, "alarm", lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds / 60))
    assert outcome("harden", {"epochs": 100_000, "max_steps": None}) == "stopped"


def test_the_fuzzer_tells_an_error_from_inside(monkeypatch):
    def inside(self):
        return {}["eps"]

    monkeypatch.setattr(ThreatModel, "__post_init__", inside)
    with pytest.raises(Raw, match="ThreatModel: KeyError at"):
        outcome("ThreatModel", {})


def test_words_of_the_library_are_no_raw_error():
    with pytest.raises(ValueError, match="unknown norm") as refused:
        ThreatModel("l3", 0.5)
    assert raw_group(refused.value) is None
