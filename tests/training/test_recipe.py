"""Optimisers and schedulers, by name and as objects, and the parameters that they train."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from short_runs import a_model, hardened, same, weights_of
from torch import nn

from robusttune.training import recipe, setup

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained


def test_optimizers_and_schedulers_by_name_and_as_objects():
    model = a_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    seen = []
    schedule = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    hardened(model, optimizer=optimizer, scheduler=schedule, epochs=3, on_epoch=seen.append)
    assert [facts["lr"] for facts in seen] == pytest.approx([1e-3, 5e-4, 2.5e-4])
    hardened(optimizer="adamw", scheduler="cosine", lr=1e-3, epochs=2, on_epoch=seen.append)
    assert seen[-2]["lr"] == pytest.approx(1e-3)
    assert seen[-1]["lr"] == pytest.approx(5e-4)
    with pytest.raises(ValueError, match=r"unknown optimizer 'sgdd' .did you mean 'sgd'.*: timm knows .*sgd"):
        hardened(optimizer="sgdd")


@pytest.mark.parametrize("scheduler", [None, "cosine", partial(torch.optim.lr_scheduler.StepLR, step_size=1)])
def test_an_optimizer_has_its_settings_of_before_after_a_run_and_can_be_used_again(tmp_path, scheduler):
    def stop(facts):
        if facts["epoch"] == 1:
            raise InterruptedError

    settings = {"tasks": {"rotation": 1.0}, "epochs": 3, "steps": 1, "scheduler": scheduler}
    model, again = a_model(), a_model()
    optimizer, same_one = (torch.optim.SGD(each.parameters(), lr=0.1, momentum=0.9) for each in (model, again))
    before = str(optimizer)
    hardened(model, optimizer=optimizer, **settings)
    assert str(optimizer) == before
    assert len(optimizer.state) == len(list(model.parameters()))  # not of the heads, which are gone
    with pytest.raises(InterruptedError):
        hardened(again, optimizer=same_one, out=tmp_path / "run", on_epoch=stop, **settings)
    hardened(again, optimizer=same_one, out=tmp_path / "run", resume=True, **settings)
    assert same(weights_of(again), weights_of(model))


class OfMetric:
    """A scheduler whose step needs a metric."""

    def step(self, metric):
        raise AssertionError

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        raise AssertionError


@pytest.mark.parametrize(
    ("scheduler", "why"),
    [
        (torch.optim.lr_scheduler.ReduceLROnPlateau, r"ReduceLROnPlateau, whose step\(\) needs arguments .*'metrics'"),
        (OfMetric(), r"OfMetric, whose step\(\) needs arguments .*'metric'"),
        ("plateau", "by a metric, but a run passes none"),
    ],
)
def test_a_scheduler_that_needs_a_metric_is_refused_before_an_epoch_is_spent(scheduler, why):
    seen = []
    with pytest.raises(ValueError, match=why):
        hardened(scheduler=scheduler, on_epoch=seen.append)
    assert not seen


class Adapter(nn.Module):
    """A low-rank addition to a frozen layer, as LoRA makes it."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.down = nn.Linear(layer.in_features, 2, bias=False)
        self.up = nn.Linear(2, layer.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, features):
        return self.layer(features) + self.up(self.down(features))


def test_an_optimizer_of_some_parameters_trains_those_and_the_heads_alone():
    model = a_model()
    before = weights_of(model)
    optimizer = torch.optim.SGD(model[6].parameters(), lr=0.1)
    groups = []
    note = {"on_epoch": lambda facts: groups.append(len(optimizer.param_groups))}
    hardened(model, tasks={"rotation": 1.0}, optimizer=optimizer, steps=1, **note)
    changed = {name for name, value in weights_of(model).items() if not torch.equal(value, before[name])}
    assert {name for name in changed if not name.startswith("1.")} == {"6.weight", "6.bias"}
    assert not {"1.weight", "1.bias"} & changed  # of the batch norm, which counts batches all the same
    assert groups == [2]


def test_adapters_train_and_what_is_frozen_stays():
    model = a_model()
    model[6] = Adapter(model[6])
    for layer in model[:4]:
        layer.requires_grad_(False)
    before = weights_of(model)
    hardened(model, classifier="6", epochs=2, awp=0.01)
    changed = {name for name, tensor in model.named_parameters() if not torch.equal(tensor, before[name])}
    assert changed == {"6.down.weight", "6.up.weight"}
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == changed


def test_a_run_whose_optimizer_had_other_customary_values_is_not_resumed(tmp_path, monkeypatch):
    class Enough(Exception):
        pass

    def stop(_):
        raise Enough

    settings = {"optimizer": "adamw", "lr": 1e-3, "epochs": 2, "out": tmp_path / "run"}
    with pytest.raises(Enough):
        hardened(on_epoch=stop, **settings)
    usual = recipe.default_recipe
    monkeypatch.setattr(setup, "default_recipe", lambda *given: replace(usual(*given), weight_decay=5e-4))
    with pytest.raises(ValueError, match=r"begun with weight decay 0\.05.*resume=False"):
        hardened(resume=True, **settings)
