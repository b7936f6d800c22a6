"""What saves memory changes no result: blocks that compute again, and batches in parts."""

import copy
import os
import subprocess
import sys
import textwrap
from contextlib import nullcontext

import pytest
import timm
import torch
from guarded import unchanged
from handwritten import digits, loader
from torch import nn
from torch.nn.utils import parametrizations

import robusttune
from robusttune import RobustLoss, ThreatModel
from robusttune.model.activation_checkpointing import blocks, checkpointed

FAMILIES = {"test_resnet": 4, "resnet18": 8, "test_vit": 6, "test_convnext": 4, "mobilenetv3_small_050": 8}


def a_batch(side=32):
    return torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64), torch.arange(
        4
    )


def stepped(name, attack_tasks, wanted):
    """The gradients and running statistics of a step in train mode, dropout included."""
    torch.manual_seed(0)
    settings = {"img_size": 32, "patch_size": 8} if "vit" in name else {}
    model = timm.create_model(name, num_classes=10, drop_rate=0.2, drop_path_rate=0.1, **settings).double().train()
    images, labels = a_batch()
    robust_loss = RobustLoss(model, ThreatModel("l2", 0.5), steps=2, attack_tasks=attack_tasks, images=images)
    torch.manual_seed(1)
    if wanted:
        with checkpointed(model) as count:
            assert count == len(blocks(model)) or count > 0
            robust_loss(images, labels)["loss"].backward()
    else:
        robust_loss(images, labels)["loss"].backward()
    gradients = {key: parameter.grad for key, parameter in robust_loss.named_parameters()}
    return gradients, dict(model.named_buffers()), model


@pytest.mark.sample(3)
@pytest.mark.parametrize("attack_tasks", ["none", "separate", "joint"])
@pytest.mark.parametrize("name", FAMILIES)
def test_checkpointing_changes_no_gradient_and_no_statistic(name, attack_tasks):
    gradients, statistics, _ = stepped(name, attack_tasks, False)
    again, recorded, model = stepped(name, attack_tasks, True)
    for key, gradient in gradients.items():
        assert torch.allclose(gradient, again[key], rtol=1e-9, atol=1e-12), key
    assert all(torch.equal(value, recorded[key]) for key, value in statistics.items())
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("name", FAMILIES)
def test_the_blocks_of_real_backbones_are_found(name):
    model = timm.create_model(name, num_classes=10)
    assert len(blocks(model)) >= min(FAMILIES[name], 4) or name.startswith("test_")
    assert blocks(model)
    assert blocks(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))) == []


PEAK = """
    import re, sys, torch, timm
    from pathlib import Path
    from robusttune import RobustLoss, ThreatModel
    from robusttune.model.activation_checkpointing import checkpointed
    from contextlib import nullcontext

    def peak():  # not ru_maxrss, which a child inherits from its parent
        return int(re.search("VmHWM:[^0-9]+([0-9]+)", Path("/proc/self/status").read_text())[1])

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = timm.create_model("resnet26", num_classes=10).train()
    images, labels = torch.rand(24, 3, 128, 128), torch.randint(10, (24,))
    loss = RobustLoss(model, ThreatModel("l2", 0.5), tasks=None, steps=1, images=images)
    before = peak()
    with checkpointed(model) if sys.argv[1] == "yes" else nullcontext():
        loss(images, labels)["loss"].backward()
    print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_checkpointing_needs_less_memory():
    # What is freed goes back at once, so that the peak is that of tensors in use.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    peak = {}
    for wanted in ("yes", "no"):
        command = [sys.executable, "-c", textwrap.dedent(PEAK), wanted]
        peak[wanted] = int(subprocess.check_output(command, timeout=300, env=environment))
    assert 0 < peak["yes"] < 0.8 * peak["no"]


@pytest.mark.slow
def test_harden_checkpoints_and_gives_the_model_back_as_it_was():
    torch.manual_seed(0)
    start = timm.create_model("test_resnet", num_classes=10, in_chans=1)
    settings = {"norm": "l2", "tasks": None, "epochs": 1, "steps": 2, "progress": False}
    results = []
    for wanted in (False, True):
        model = copy.deepcopy(start)
        robusttune.harden(model, loader(100, 50), checkpointing=wanted, **settings)
        assert not any("forward" in vars(module) for module in model.modules())
        results.append(model.state_dict())
    for key, value in results[0].items():
        assert torch.allclose(value, results[1][key], atol=1e-5), key

    def broken(_):
        raise RuntimeError("stop")

    model = copy.deepcopy(start)
    with unchanged(model), pytest.raises(RuntimeError, match="stop"):
        robusttune.harden(model, loader(100, 50), checkpointing=True, on_epoch=broken, **settings)


class Counted(nn.Module):
    """A block that counts its forwards in train mode, in an attribute and in a buffer, and scales by the count."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.calls = nn.Linear(64, 64), nn.Linear(64, 64), 0
        self.register_buffer("count", torch.zeros(()))

    def forward(self, inputs):
        if self.training:
            self.calls += 1
            self.count += 1
        return self.second(self.first(inputs).relu()) / (1 + self.count + self.calls)


def normalised(normalise):
    """A block of two layers with a spectral norm."""
    return nn.Sequential(normalise(nn.Linear(64, 64)), nn.ReLU(), normalise(nn.Linear(64, 64)))


RECORDING = {
    "parametrization": lambda: normalised(parametrizations.spectral_norm),
    "hook": lambda: normalised(nn.utils.spectral_norm),
    "counter": Counted,
}


@pytest.mark.filterwarnings("ignore:.*spectral_norm")
@pytest.mark.parametrize("block", RECORDING.values(), ids=RECORDING)
def test_what_a_layer_records_is_recorded_once(block):
    """A second power iteration would change the weight that the gradient is of, and the vectors for all later steps."""
    images, labels = digits()
    results = []
    for wanted in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Sequential(block(), block()), nn.Linear(64, 10)).train()
        robust_loss = RobustLoss(model, ThreatModel("l2", 0.5), tasks=None, objective="trades", steps=1, images=images)
        with checkpointed(model) if wanted else nullcontext():
            for _ in range(2):
                robust_loss(images[:16], labels[:16])["loss"].backward()
        calls = [module.calls for module in model.modules() if isinstance(module, Counted)]
        results.append(([each.grad for each in model.parameters()], list(model.buffers()), calls))
    for one, other in zip(results[0][0], results[1][0], strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    assert all(torch.equal(one, other) for one, other in zip(results[0][1], results[1][1], strict=True))
    assert results[0][2] == results[1][2]


@pytest.mark.parametrize("other", [{"awp": 0.01}, {"compile": True}])
def test_checkpointing_is_refused_beside_what_it_would_falsify(other):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with unchanged(model), pytest.raises(ValueError, match=f"which {next(iter(other))}=.* does not allow"):
        robusttune.harden(model, loader(), checkpointing=True, progress=False, **other)


@pytest.mark.parametrize("size", [16, 20, 40, 100])
def test_parts_of_a_batch_give_the_step_of_the_whole(size):
    """Without batch norm, with the attack's chance and the views taken out."""
    images, labels = digits()
    images, labels = images[:40], labels[:40]
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    whole, parts = copy.deepcopy(model), copy.deepcopy(model)
    settings = {"tasks": None, "eps": 0.0, "eps_ramp": False, "ema": 0, "augment": "none", "lr": 0.1, "epochs": 1}
    seen = []
    robusttune.harden(whole, [(images, labels)], progress=False, on_epoch=seen.append, **settings)
    robusttune.harden(parts, [(images, labels)], micro_batch=size, progress=False, on_epoch=seen.append, **settings)
    assert torch.allclose(whole[1].weight, parts[1].weight, atol=1e-6)
    assert seen[0]["loss"] == pytest.approx(seen[1]["loss"], abs=1e-5)
    assert seen[0]["robust accuracy"] == seen[1]["robust accuracy"]


def test_parts_are_never_one_image_beside_batch_norm():
    images, labels = digits()
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    batches = [(images[:25], labels[:25]), (images[25:28], labels[25:28])]
    settings = {"epochs": 1, "steps": 1, "progress": False}
    robusttune.harden(model, batches, micro_batch=1, **settings)
    extra = [images[100:107]]
    robusttune.harden(model, batches, micro_batch=4, unlabeled_loader=extra, tasks={"rotation": 1.0}, **settings)
    with pytest.raises(ValueError, match="micro_batch is 0, but a whole number of at least 1"):
        robusttune.harden(model, batches, micro_batch=0, **settings)
