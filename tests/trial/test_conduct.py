"""Conduct of a trial: what it says of its cost when it ends early."""

from types import SimpleNamespace

import pytest

from robusttune.trial import conduct
from robusttune.trial.budget import Cost, total_seconds
from robusttune.trial.conduct import Conduct
from robusttune.trial.data import InputSpace
from robusttune.trial.decision.verdict import Verdict
from robusttune.trial.plan import TrialPlan

COSTS = {"nothing": Cost(0, 1), "adversarial": Cost(10, 1), "cheap": Cost(20, 1), "dear": Cost(500, 1)}
PLAN = TrialPlan.from_dict(
    {
        "threats": {"linf": 0.1},
        "epochs": 3,
        "seeds": [0, 1, 2, 3],
        "arms": {arm: [{"harden": {"tasks": None}}] if arm != "nothing" else [] for arm in COSTS},
        "needs": ["clean"],
        "screening": {"seeds": [100, 101], "epochs": 1, "images": 10, "items": ["clean"], "keep": 2},
        "looks": [3, 4],
        "evaluation": {"images": 30, "items": ["clean"]},
    }
)


@pytest.fixture
def without_training(monkeypatch):
    stands = SimpleNamespace(findings=SimpleNamespace(answered=True), verdict=Verdict.GO_ON)
    for name, instead in (
        ("Trial", SimpleNamespace(load=lambda *given: SimpleNamespace(changed=False))),
        ("kept_arms", lambda trial: ["nothing", "adversarial", "cheap"]),
        ("decide", lambda trial: stands),
        ("note_look", lambda *given: None),
    ):
        monkeypatch.setattr(conduct, name, instead)
    for name in ("_run", "_power"):
        monkeypatch.setattr(Conduct, name, lambda *given: None)


def test_what_an_early_end_saves_is_of_the_arms_that_were_kept(without_training, tmp_path, caplog):
    caplog.set_level("INFO", "robusttune")
    Conduct(tmp_path, None, None, InputSpace(), lambda: None, True).run(
        PLAN, lambda plan: total_seconds(plan, lambda _: COSTS)
    )
    # One seed of "adversarial" and of "cheap"; "dear", which the estimate of the whole trial counts, was not kept.
    assert "the answer stands after 3 seeds; about 32 s are saved" in caplog.text
