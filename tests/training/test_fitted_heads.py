"""Heads of tasks of weight 0 in `harden`: fitted at the end, to a model that becomes what it would be without them."""

import logging
import warnings

import pytest
import timm
import torch
from short_runs import a_loader, a_model, digits, hardened, same, weights_of
from torch.nn import functional as F
from torch.utils.data import DataLoader

import robusttune
from robusttune.run.files import load_weights
from robusttune.training import fitted_heads
from robusttune.training.replay import replay

BOTH = {"rotation": 0.0, "jigsaw": 0.0}
unjudged = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads on the features of short runs


def a_vit():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = {"img_size": 8, "patch_size": 4, "in_chans": 1, "num_classes": 10}
        return timm.create_model("test_vit", drop_rate=0.1, drop_path_rate=0.1, **settings)


RUNS = {
    "fast, with selection": (a_model, {"preset": "fast", "steps": None, "epochs": 2, "val_loader": a_loader(80)}),
    "clipped, weights attacked": (a_model, {"clip_grad": 0.05, "awp": 0.005, "precision": "bf16", "micro_batch": 25}),
    "transformer with dropout": (
        a_vit,
        {"attack_tasks": "separate", "accumulate": 2, "max_steps": 2},
    ),
}


@pytest.mark.sample(1)
@unjudged
@pytest.mark.parametrize(("new", "settings"), RUNS.values(), ids=RUNS)
def test_model_and_chance_are_what_they_would_be_without_the_tasks(new, settings, tmp_path):
    def run(**more):
        order = torch.Generator().manual_seed(3)
        model = hardened(new(), DataLoader(digits(120), 40, shuffle=True, generator=order), **settings, **more)
        return weights_of(model), order.get_state()

    chance = torch.get_rng_state()
    plain, order = run(tasks=None)
    for more in ({}, {"out": tmp_path / "run"}):
        found, order_now = run(tasks=BOTH, **more)
        assert same(found, plain)
        assert torch.equal(order_now, order)
    assert torch.equal(torch.get_rng_state(), chance)
    assert not same(run(tasks=dict.fromkeys(BOTH, 0.1))[0], plain)
    heads = load_weights(tmp_path / "run" / "heads.safetensors")
    assert {name.split(".")[1] for name in heads} == set(BOTH)
    assert all(values.dtype == torch.float32 and values.norm() > 0 for values in heads.values())


def test_a_regression_is_fitted_to_features_of_any_scale():
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(3, (300,), generator=generator)
    scale, shift = torch.tensor([10.0, 1.0, 0.5, 1.0]), torch.tensor([50.0, 0.0, 1.0, 2.0])
    inner = torch.randn(300, 4, generator=generator) + 2 * torch.eye(4)[targets]
    inner[:, 3] = 0  # says nothing, and does not vary
    weight, bias = fitted_heads.fitted(fitted_heads.Views(inner * scale + shift, targets, 3))
    again, _ = fitted_heads.fitted(fitted_heads.Views(inner, targets, 3))
    logits = F.linear(inner * scale + shift, weight, bias)
    assert (logits.argmax(1) == targets).float().mean() > 0.8
    assert torch.allclose(weight[:, :3] * scale[:3], again[:, :3], atol=1e-2)
    assert not weight[:, 3].any()


def test_the_heads_are_those_of_the_weights_that_are_returned_and_are_judged(tmp_path, caplog):
    caplog.set_level(logging.INFO, "robusttune")
    held = a_loader(160)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a head that guesses would be warned of
        model = hardened(loader=a_loader(400), val_loader=held, tasks=BOTH, epochs=3, out=tmp_path, lr=0.1)
    heads = robusttune.load_heads(tmp_path, model)
    records = robusttune.evaluate(model, held, ["pretext"], heads=heads, norm="l2", eps=0.3, progress=False)
    shares = {record.setting["task"]: record.value for record in records if record.setting.get("eps", 0) == 0}
    assert shares["rotation"] > 0.85
    assert shares["jigsaw"] > 0.35  # 1 in 24 by guessing
    assert "heads of" not in caplog.text


def test_a_head_that_guesses_after_the_fit_is_warned_of(tmp_path):
    noise = [(torch.rand(40, 1, 8, 8), torch.arange(40) % 10) for _ in range(5)]
    with pytest.warns(UserWarning, match="rotation's held-out accuracy is"):
        hardened(loader=noise[1:], val_loader=noise[:1], tasks={"rotation": 0}, out=tmp_path)


@pytest.mark.slow
@unjudged
def test_a_run_that_is_killed_resumes_to_the_same_heads_and_has_none_before_its_end(tmp_path, monkeypatch):
    settings = {"tasks": BOTH | {"patch_rotation": 0.5}, "epochs": 2, "lr": 0.05}
    loader, fitted, deaths = list(a_loader(240)), fitted_heads.fitted, []

    def dies(views):
        deaths.append(views)
        raise KeyboardInterrupt

    hardened(loader=loader, out=tmp_path / "whole", **settings)
    monkeypatch.setattr(fitted_heads, "fitted", dies)
    with pytest.raises(KeyboardInterrupt):
        hardened(loader=loader, out=tmp_path / "killed", **settings)
    assert len(deaths) == 1
    assert list(robusttune.load_heads(tmp_path / "killed", a_model()).tasks) == ["patch_rotation"]
    monkeypatch.setattr(fitted_heads, "fitted", fitted)
    whole = load_weights(tmp_path / "whole" / "heads.safetensors")
    for _ in range(2):  # the second time, it has finished
        hardened(loader=loader, out=tmp_path / "killed", resume=True, **settings)
        assert same(load_weights(tmp_path / "killed" / "heads.safetensors"), whole)
    assert replay(tmp_path / "whole", a_model(), loader).same


def test_a_shuffling_loader_gives_a_resumed_run_the_same_heads(tmp_path):
    settings = {"tasks": {"rotation": 0}, "out": tmp_path, "val_loader": a_loader(80)}
    hardened(loader=a_loader(240), **settings)
    before = load_weights(tmp_path / "heads.safetensors")
    torch.rand(3)
    hardened(loader=a_loader(240), resume=True, **settings)
    assert same(load_weights(tmp_path / "heads.safetensors"), before)
    hardened(loader=a_loader(240), resume=True, **settings, epochs=2)
    assert not same(load_weights(tmp_path / "heads.safetensors"), before)


def test_without_a_folder_nothing_is_fitted_and_nothing_is_said(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "robusttune")
    monkeypatch.setattr(fitted_heads, "views_of_tasks", None)
    settings = {"val_loader": a_loader(80), "max_steps": 2}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hardened(tasks=BOTH, **settings)
    assert "are dropped" not in caplog.text
    hardened(tasks={"rotation": 0.5, "jigsaw": 0.0}, **{**settings, "val_loader": None})
    assert "the heads of rotation are dropped: pass out= to keep them" in caplog.text


def test_heads_whose_images_are_used_up_are_not_kept(tmp_path, caplog):
    caplog.set_level(logging.INFO, "robusttune")
    hardened(loader=iter(list(a_loader(80))), tasks=BOTH, out=tmp_path)
    assert "the heads of rotation, jigsaw were not fitted, and are not kept: the loader is an iterator" in caplog.text
    assert not (tmp_path / "heads.safetensors").exists()
    assert (tmp_path / "model.safetensors").exists()
