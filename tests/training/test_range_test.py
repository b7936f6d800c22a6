"""The range test: a larger limit of the gradient where the preset's is far too small, and no trace of it in the run."""

import json
import math
import time
from pathlib import Path

import pytest
import torch
from short_runs import a_loader, a_model, digits, same, weights_of
from torch import nn
from torch.utils.data import DataLoader, Sampler, Subset, TensorDataset

import robusttune
from robusttune.training import range_test

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy", "ignore:the model classifies .* before this run")
LONG = {"norm": "linf", "eps": 0.02, "tasks": None, "epochs": 15, "progress": False}  # 480 steps


class Steep(nn.Module):
    """A linear classifier of large inputs and large random weights: steep gradients, and steps of norm 0.2 hardly move it."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.Linear(64, 10)
        with torch.no_grad():
            self.layer.weight.mul_(120)

    def forward(self, images):
        return self.layer(100 * images.flatten(1))


def hardened(model, folder=None, count=1000, **settings):
    torch.manual_seed(0)
    robusttune.harden(model, a_loader(count, 100), **{**LONG, "out": folder, **settings})
    return weights_of(model)


def found(folder):
    return json.loads((Path(folder) / "run.json").read_text()).get("range_test")


def test_gradients_near_the_limit_are_measured_and_nothing_is_tried(tmp_path):
    with pytest.raises(Stop):
        hardened(a_model(), tmp_path / "run", on_epoch=stop_after(1))
    measured = found(tmp_path / "run")
    assert 0 < measured["norm"] <= 25
    assert (measured["robust"], measured["clip_grad"]) == ({}, 1)


class Stop(Exception):
    """Ends a run."""


def stop_after(epoch):
    def on_epoch(facts):
        if facts["epoch"] == epoch:
            raise Stop

    return on_epoch


def test_gradients_far_above_the_limit_get_a_larger_one_which_is_said_and_kept_at_a_resume(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(range_test, "LEAST", 96)
    short = {"epochs": 3}
    with pytest.raises(Stop):
        hardened(Steep(), tmp_path / "killed", on_epoch=stop_after(2), **short | {"progress": True})
    assert "range test: gradients are clipped at 5, not at 1, as their norm is" in capsys.readouterr().err
    courses = found(tmp_path / "killed")
    assert courses["clip_grad"] == 5
    assert courses["norm"] > 25
    assert courses["robust"]["5"] > courses["robust"]["1"] + 0.2
    resumed = hardened(Steep(), tmp_path / "killed", resume=True, **short)
    whole = hardened(Steep(), tmp_path / "whole", **short)
    assert same(resumed, whole)
    assert found(tmp_path / "killed") == found(tmp_path / "whole") == courses
    assert not same(whole, hardened(Steep(), clip_grad=1.0, **short))


@pytest.fixture
def always(monkeypatch):
    """A short range test, in any run."""
    for name, value in {"STEEP": 0.0, "LEAST": 0, "STEPS": 16}.items():
        monkeypatch.setattr(range_test, name, value)


@pytest.mark.parametrize("teacher", [False, True], ids=["", "teacher"])
def test_a_run_that_keeps_the_limit_ends_bit_for_bit_as_without_the_test(tmp_path, always, teacher):
    settings = {"augment": "standard", "tasks": {"rotation": 0.5}, "epochs": 1, "count": 400}
    if teacher:
        settings["unlabeled_loader"] = DataLoader(Subset(digits(1200), range(1000, 1200)), 50, shuffle=True)
    tried = hardened(a_model(), tmp_path / "tried", **settings)
    assert found(tmp_path / "tried")["clip_grad"] == 1
    assert same(tried, hardened(a_model(), clip_grad=1.0, **settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"clip_grad": 1.0},
        {"lr": 0.2},
        {"optimizer": "sgd"},
        {"preset": "fast"},
        {"max_steps": 479},
        {"time_budget": 0.5},
        {"eps": 0},
    ],
    ids=str,
)
def test_what_the_user_chose_stays_and_a_short_run_is_not_tested(tmp_path, monkeypatch, settings):
    monkeypatch.setattr(range_test, "STEEP", 0.0)
    with pytest.raises(Stop):
        hardened(Steep(), tmp_path / "run", on_epoch=stop_after(1), **settings)
    assert found(tmp_path / "run") is None


def test_a_test_that_takes_a_small_part_of_a_time_budget_is_made(tmp_path):
    with pytest.raises(Stop):
        hardened(Steep(), tmp_path / "run", on_epoch=stop_after(1), time_budget="1h")
    assert found(tmp_path / "run")["clip_grad"] == 5


class Slow(TensorDataset):
    """Images that take long to load."""

    def __getitem__(self, row):
        time.sleep(0.002)
        return super().__getitem__(row)


def test_the_time_that_loading_takes_counts_against_a_time_budget(tmp_path):
    loader = DataLoader(Slow(*digits(400).tensors), 100, shuffle=True)  # 50 ms a step; 136 steps and more in 3 s
    with pytest.raises(Stop):
        robusttune.harden(
            Steep(), loader, **{**LONG, "epochs": 50}, time_budget=30.0, out=tmp_path, on_epoch=stop_after(1)
        )
    assert found(tmp_path) is None


def test_gradients_of_micro_batches_are_those_of_their_batch(tmp_path, monkeypatch):
    for name, value in {"STEEP": math.inf, "LEAST": 0}.items():
        monkeypatch.setattr(range_test, name, value)
    for folder, settings in (("whole", {}), ("parts", {"micro_batch": 1})):  # of two images each, for batch norm
        with pytest.raises(Stop):
            hardened(a_model(), tmp_path / folder, count=300, on_epoch=stop_after(1), **settings)
    assert found(tmp_path / "parts")["norm"] == pytest.approx(found(tmp_path / "whole")["norm"], rel=0.5)


class Remembering(Sampler):
    """A sampler with a state of its own, which a second reading would move on."""

    def __init__(self, images) -> None:
        self.images, self.epochs = images, 0

    def __iter__(self):
        self.epochs += 1
        return iter(torch.randperm(self.images, generator=torch.Generator().manual_seed(self.epochs)).tolist())

    def __len__(self):
        return self.images


@pytest.mark.parametrize("kind", ["list", "sampler"])
def test_loaders_that_may_not_yield_the_same_images_again_are_not_read_ahead(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(range_test, "STEEP", 0.0)
    images = a_loader(1000, 100).dataset
    loader = list(a_loader(1000, 100)) if kind == "list" else DataLoader(images, 100, sampler=Remembering(len(images)))
    with pytest.raises(Stop):
        robusttune.harden(Steep(), loader, **LONG, out=tmp_path / "run", on_epoch=stop_after(1))
    assert found(tmp_path / "run") is None


def test_a_label_above_the_classes_is_named_as_without_the_test(always):
    images, labels = digits(1000).tensors
    labels = labels.clone()
    labels[700] = 12
    with pytest.raises(ValueError, match=r"^batch \d+ of epoch 1: .*12"):
        robusttune.harden(a_model(), DataLoader(TensorDataset(images, labels), 100), **LONG)


def test_a_course_that_ends_in_nan_counts_as_lost(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(range_test, "WIDER", math.nan)
    with pytest.raises(Stop):
        hardened(Steep(), tmp_path / "run", on_epoch=stop_after(1), progress=True)
    courses = found(tmp_path / "run")
    assert courses["clip_grad"] == 1
    assert courses["robust"]["nan"] is None
    assert "range test" not in capsys.readouterr().err
