"""Every two choices of a run go together: a covering set of runs, each on real digits, is taken in full."""

import itertools
import random
from functools import partial

import pytest
import torch
from torch import nn

import robusttune
from robusttune import plugins

FOREIGN = ("torchattacks", "foolbox", "adv_lib")  # which refuse a joint attack
CHOICES = {
    "norm": plugins.names("norms"),
    "objective": plugins.names("objectives"),
    "attack": [name for name in plugins.names("attacks") if name not in FOREIGN],
    "tasks": [None, *[{name: 0.5} for name in plugins.names("tasks")], dict.fromkeys(plugins.names("tasks"), 0.5)],
    "attack_tasks": ["none", "separate", "joint"],
    "views": [1, "all"],
    "precision": ["fp32", "bf16", "fp16"],
    "accumulate": [1, 2],
    "clip_grad": [None, 1.0],
    "channels_last": [False, True],
    "awp": [0.0, 0.01],
    "ema": [0.0, 0.9],
    "augment": ["none", "standard", "augmix", "prime", "noise"],
    "eps_ramp": [False, True],
    "optimizer": ["sgd", "adamw"],
    "compile": [False, True],
}
MOST = 60


def covering_set():
    """Runs in which each pair of values of two choices occurs at least once, found greedily."""
    names, chance = list(CHOICES), random.Random(0)
    numbers = {name: range(len(CHOICES[name])) for name in names}
    missing = {
        ((first, one), (second, two))
        for first, second in itertools.combinations(names, 2)
        for one, two in itertools.product(numbers[first], numbers[second])
    }
    runs = []
    while missing:
        (first, one), (second, two) = min(missing)
        tries = [{name: chance.choice(numbers[name]) for name in names} | {first: one, second: two} for _ in range(200)]
        best = max(tries, key=lambda run: len(pairs_of(run) & missing))
        missing -= pairs_of(best)
        runs.append(best)
    return runs


def pairs_of(run):
    return set(itertools.combinations(run.items(), 2))


RUNS = covering_set()


def test_the_set_is_small():
    assert 9 <= len(RUNS) <= MOST


@pytest.mark.filterwarnings("ignore:.*held-out accuracy")
@pytest.mark.parametrize("run", RUNS, ids=lambda run: "-".join(map(str, run.values())))
def test_choices_go_together(run, monkeypatch, caplog):
    # All but the last stage, machine code, which takes minutes and is tested elsewhere.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch.compiler.reset()
    data = pytest.importorskip("sklearn.datasets").load_digits()
    images = torch.tensor(data.images[:800] / 16, dtype=torch.float32)[:, None]
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(images, torch.tensor(data.target[:800])), 80, shuffle=True
    )
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(1, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Flatten(),
        nn.Linear(288, 10),
    ]
    model = nn.Sequential(*layers)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = {name: CHOICES[name][number] for name, number in run.items()}
    if settings["tasks"] is not None and settings["views"] == 1 and len(settings["tasks"]) == 1:
        settings["views"] = "all"
    seen = []
    robusttune.harden(model, loader, eps=0.05, steps=None if settings["attack"] == "nfgsm" else 2, epochs=2,
                      lr=0.01, progress=False, on_epoch=seen.append, **settings)  # fmt: skip
    assert [facts["step"] for facts in seen] == ([10, 20] if settings["accumulate"] == 1 else [5, 10])
    assert "cannot be compiled" not in caplog.text
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    assert not [name for name, parameter in model.named_parameters() if torch.equal(before[name], parameter)]
