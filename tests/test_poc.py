"""The staged trial: its plan, budget, arms, results and page, and that a kill costs nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import robusttune
from robusttune import lookup
from robusttune.compute import Sizes, lengths, passes
from robusttune.planning import chosen_arms
from robusttune.threat import ThreatModel
from robusttune.trials import RECORDS, Trial

SIDE, IMAGES = 16, 64
ARMS = ["nothing", "adversarial", "rotation_joint"]


def loader(count=IMAGES, seed=0):
    drawn = torch.Generator().manual_seed(seed)
    images, labels = torch.rand(count, 1, SIDE, SIDE, generator=drawn), torch.arange(count) % 3
    return DataLoader(TensorDataset(images, labels), batch_size=32)


def small():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
        ).eval()


def tried(out, **changes):
    given = {
        "threats": {"linf": 0.1}, "arms": ARMS, "tasks": {"rotation": 0.5}, "seeds": 2, "epochs": 1, "images": 32,
        "evaluation": ["clean"], "test_loader": loader(seed=1), "mean": [0.0], "std": [1.0], "device": "cpu",
        "settings": {"steps": 2}, "progress": False,
    }  # fmt: skip
    return robusttune.poc(small(), loader(), out=out, **{**given, **changes})


def values(out):
    return [(r.arm, r.seed, r.records.where("clean")[0].value) for r in Trial.load(out).results]


def test_plan_is_written_edited_and_run_and_nothing_is_run_twice(tmp_path):
    path = tried(tmp_path / "t", plan_only=True)
    plan = yaml.safe_load(path.read_text())
    assert list(plan["arms"]) == ARMS
    assert plan["seeds"] == [0, 1]
    del plan["arms"]["rotation_joint"]
    path.write_text(yaml.safe_dump(plan, sort_keys=False))
    tried(tmp_path / "t", resume=True)
    assert {arm for arm, _, _ in values(tmp_path / "t")} == {"nothing", "adversarial"}
    assert (tmp_path / "t/decision.md").exists()
    assert (tmp_path / "t/decision.html").exists()
    written = {each: each.stat().st_mtime_ns for each in Path(tmp_path / "t").rglob("*.safetensors")}
    tried(tmp_path / "t", resume=True)
    assert written == {each: each.stat().st_mtime_ns for each in Path(tmp_path / "t").rglob("*.safetensors")}


def test_plan_over_budget_is_refused_with_what_to_drop(tmp_path):
    with pytest.raises(ValueError, match=r"the plan would take about .* but the budget is .*Edit"):
        tried(tmp_path / "t", budget=0.001)
    assert (tmp_path / "t/plan.yaml").exists()


def test_killed_trial_goes_on_to_the_same_results(tmp_path):
    tried(tmp_path / "whole")
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_poc; test_poc.tried(sys.argv[1])"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "killed")], env=dict(os.environ))
    started = time.monotonic()
    while not list((tmp_path / "killed").rglob(RECORDS)) and process.poll() is None:
        assert time.monotonic() - started < 60
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    tried(tmp_path / "killed", resume=True)
    assert values(tmp_path / "killed") == values(tmp_path / "whole")


def test_arms_take_equal_compute():
    sizes, threat = Sizes(32, 10, (1, SIDE, SIDE)), ThreatModel("linf", 0.1)
    settings = {"steps": 3}
    assert passes("harden", {**settings, "tasks": None}, sizes, threat) == 4
    for phases in chosen_arms(None, {"rotation": 0.5}).values():
        found = lengths(phases, 4, sizes, threat, settings)
        if found:
            assert sum(each.steps * each.passes for each in found) == pytest.approx(4 * 10 * 4, rel=0.05)


def test_arms_follow_the_folder_and_unknown_ones_are_refused():
    files = {each.stem for each in Path(robusttune.__file__).parent.joinpath("arms").glob("[a-z]*.py")}
    assert set(lookup.names("arms")) == files
    with pytest.raises(ValueError, match=r"unknown arm 'best': known are .*adversarial"):
        chosen_arms(["best"], {"rotation": 0.5})


def test_price_without_budget_is_refused(tmp_path):
    with pytest.raises(ValueError, match="price= is given without budget="):
        tried(tmp_path / "t", price=2.0)
    assert not (tmp_path / "t").exists()
