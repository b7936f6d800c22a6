"""RobustLoss in other people's loops: the gradients of harden's own step, and each example from end to end."""

import copy
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import robusttune
from robusttune import RobustLoss, ThreatModel

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = {"plain": None, "accelerate": None, "timm": None, "lightning": "lightning", "transformers": "transformers"}
THREAT = ThreatModel("linf", 0.1)
SETTINGS = {"tasks": {"rotation": 0.5, "jigsaw": 0.5}, "attack_tasks": "none", "steps": 3}


def net():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(8, 10))


def a_batch():
    return torch.rand(16, 1, 32, 32, generator=torch.Generator().manual_seed(1)), torch.arange(16) % 10


@pytest.fixture
def examples(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def hardens_own():
    """What one step of harden with a learning rate of 1 changes, which is the gradient."""
    model, (images, labels) = net().train(), a_batch()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    robusttune.harden(
        model,
        [(images, labels)],
        norm="linf",
        eps=0.1,
        epochs=1,
        optimizer=lambda parameters: torch.optim.SGD(parameters, 1.0),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0),
        ema=0,
        eps_ramp=False,
        augment="none",
        progress=False,
        **SETTINGS,
    )
    return {name: before[name] - p.detach() for name, p in model.named_parameters()}


def plain(model):
    robust_loss = RobustLoss(model, THREAT, images=a_batch()[0], **SETTINGS).train()
    robust_loss(*a_batch())["loss"].backward()


def accelerated(model):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    robust_loss = accelerator.prepare(RobustLoss(model, THREAT, images=a_batch()[0], **SETTINGS).train())
    accelerator.backward(robust_loss(*a_batch())["loss"])


def of_timm(model):
    from loop_timm import RobustTask

    RobustTask(model, THREAT, images=a_batch()[0], **SETTINGS).train()(*a_batch())["loss"].backward()


def of_lightning(model):
    pytest.importorskip("lightning")
    from loop_lightning import Hardening

    hardening = Hardening(model)
    hardening.robust_loss = RobustLoss(model, THREAT, images=a_batch()[0], **SETTINGS).train()
    hardening.training_step(a_batch(), 0)["loss"].backward()


def of_transformers(model):
    pytest.importorskip("transformers")
    from loop_transformers import RobustTrainer, settings

    robust_loss = RobustLoss(model, THREAT, images=a_batch()[0], **SETTINGS).train()
    trainer = RobustTrainer(model.train(), robust_loss, settings("unused"))
    images, labels = a_batch()
    trainer.compute_loss(model, {"pixel_values": images, "labels": labels}).backward()


@pytest.mark.parametrize("way", [plain, accelerated, of_timm, of_lightning, of_transformers])
def test_every_loop_has_the_gradients_of_hardens_own_step(way, examples):
    expected, model = hardens_own(), net().train()
    way(model)
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, expected[name], rtol=1e-5, atol=1e-6), name


def test_lightning_validates_in_inference_mode_and_the_attack_works_there(examples):
    pytest.importorskip("lightning")
    robust_loss = RobustLoss(net(), THREAT, images=a_batch()[0], **SETTINGS).eval()
    expected = robust_loss(*a_batch())["robust"]
    with torch.inference_mode():
        assert torch.equal(robust_loss(*a_batch())["robust"], expected)


def test_the_heads_and_the_model_are_all_that_an_optimiser_is_given(examples):
    from loop_timm import RobustTask

    model = net()
    task = RobustTask(model, THREAT, images=a_batch()[0], **SETTINGS)
    own = {id(p) for p in model.parameters()}
    heads = [p for p in task.robust_loss.parameters() if id(p) not in own]
    assert len(heads) == 4
    assert {id(p) for p in task.parameters()} == own | {id(p) for p in heads}
    assert list(copy.deepcopy(model).state_dict()) == list(net().state_dict())


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_example_makes_a_model_robust(name, tmp_path):
    if SCRIPTS[name]:
        pytest.importorskip(SCRIPTS[name])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    run = subprocess.run(
        [sys.executable, EXAMPLES / f"loop_{name}.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    rows = re.findall(r"^\| ([\d.]+) \| ([\d.]+)% \(.*\) \| ([\d.]+)% \(", run.stdout, re.MULTILINE)
    assert [eps for eps, *_ in rows] == ["0", "0.05", "0.1", "0.15"]
    assert float(rows[0][1]) > 80
    assert float(rows[2][2]) > float(rows[2][1]) + 5
