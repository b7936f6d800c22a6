"""Every argument of `harden` arrives in its group, with the same default however the groups are built."""

import inspect
from contextlib import contextmanager, nullcontext
from dataclasses import fields

import pytest
import torch
from torch import nn

from robusttune import harden, pretrain
from robusttune.training import harden as harden_file
from robusttune.training import pretrain as pretrain_file
from robusttune.training.settings import HardenSettings, run_settings

NAMES = [name for name in inspect.signature(harden).parameters if name not in ("model", "loader")]


class Stopped(Exception):
    pass


def passed_by(monkeypatch, function, file, place, *arguments, **settings):
    """The settings in groups that a function passes on."""
    seen = []

    @contextmanager
    def stop(model, *groups):
        seen.extend(groups)
        raise Stopped
        yield

    monkeypatch.setattr(file, place, stop)
    with pytest.raises(Stopped):
        function(nn.Linear(2, 2), *arguments, **settings)
    return seen


def test_every_argument_of_harden_arrives_in_its_group(monkeypatch):
    monkeypatch.setattr("robusttune.training.settings.check_settings", lambda settings: None)
    monkeypatch.setattr(harden_file, "with_preset", lambda settings: settings)
    monkeypatch.setattr(harden_file, "staged", lambda model, settings: nullcontext(settings))
    marks = {name: object() for name in NAMES} | {"time_budget": 12.5}  # which is read as seconds
    (settings,) = passed_by(monkeypatch, harden, harden_file, "hardening", loader := [], **marks)
    assert settings.arguments(NAMES) == marks
    assert settings.loaders.loader is loader
    assert settings.names == tuple(NAMES)


def test_the_groups_have_the_defaults_of_harden(monkeypatch):
    monkeypatch.setattr(harden_file, "with_preset", lambda settings: settings)
    monkeypatch.setattr(harden_file, "staged", lambda model, settings: nullcontext(settings))
    (settings,) = passed_by(monkeypatch, harden, harden_file, "hardening", [])
    assert settings == run_settings([])
    defaults = {name: each.default for name, each in inspect.signature(harden).parameters.items() if name in NAMES}
    assert settings.arguments(NAMES) == defaults


def test_every_setting_of_a_group_is_an_argument_of_harden():
    groups = [getattr(run_settings([]), each.name) for each in fields(run_settings([]))[2:]]
    assert {each.name for group in groups for each in fields(group)} - {"loader"} == set(NAMES)
    annotations = {name: each.annotation for name, each in inspect.signature(harden).parameters.items()}
    different = {name for name in NAMES if HardenSettings.__annotations__[name] != annotations[name]}
    assert different <= {"objective"}  # pretrain has none


def test_every_argument_of_pretrain_arrives_in_its_group(monkeypatch):
    names = [name for name in inspect.signature(pretrain).parameters if name not in ("model", "images")]
    changed = {"tasks": {"rotation": 1.0}, "norm": "l2", "eps": 0.25, "steps": 3, "epochs": 2, "seed": 7, "lr": 0.5}
    changed |= {"views": 1, "max_steps": 9, "accumulate": 2, "checkpoint_every": 4, "compile": False, "progress": False}
    groups = []
    monkeypatch.setattr(
        pretrain_file, "_pretext_loss", lambda *given: groups.append(given[3]) or (_ for _ in ()).throw(Stopped)
    )
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(Stopped):
        pretrain(model, [torch.rand(4, 1, 8, 8)], **changed)
    passed = groups[0].arguments(names)
    assert {name: passed[name] for name in changed} == changed
    assert passed.keys() == set(names)


def test_an_argument_that_harden_does_not_have_is_refused():
    with pytest.raises(TypeError, match=r"harden has no argument 'nrom' \(did you mean 'norm'\?\)"):
        run_settings([], nrom="l2")
    with pytest.raises(TypeError, match="harden has no argument 'xyzzy': it takes norm, eps, "):
        run_settings([], xyzzy=1)
