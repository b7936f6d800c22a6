"""The core path on an accelerator: placement, bf16, and agreement with the CPU. `pytest -m gpu`"""

import copy
import gc
import warnings
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from whole_photographs import photographs

import robusttune
from robusttune import LossOf, RobustLoss, ThreatModel, plugins
from robusttune.attacks.pgd import pgd
from robusttune.augmentations._augment import applied, chosen_augment
from robusttune.data.epochs import Batches
from robusttune.model.cuda_graphs import Graphs
from robusttune.model.devices import available_accelerator
from robusttune.training import autotune
from robusttune.training.precision import chosen_precision

BOTH = {"rotation": 0.5, "jigsaw": 0.5}
ACCELERATOR = available_accelerator()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(ACCELERATOR is None, reason="no accelerator here"),
    pytest.mark.filterwarnings("ignore:.*held-out accuracy"),
]


def a_model():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 2), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 10))


def a_batch(count=16):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, 32, 32, generator=generator), torch.randint(10, (count,), generator=generator)


def no_chance(loss_of, images, threat, *, generator):
    """PGD from the images themselves: random starts differ from device to device."""
    return pgd(loss_of, images, threat, generator=generator, steps=3, random_start=False)


def gradients_on(device, attack_tasks, dtype=torch.float64):
    robust_loss = RobustLoss(
        a_model().to(dtype),
        ThreatModel("l2", 0.5),
        attack=no_chance,
        attack_tasks=attack_tasks,
        tasks=BOTH,
        images=a_batch()[0].to(dtype),
    ).to(device)
    images, labels = a_batch()
    out = robust_loss(images.to(device, dtype), labels.to(device))
    out["loss"].backward()
    return out["loss"].item(), {name: p.grad.cpu() for name, p in robust_loss.named_parameters()}


@pytest.mark.parametrize("attack_tasks", ["none", "separate", "joint"])
def test_losses_and_gradients_agree_with_the_cpu(attack_tasks):
    (there, gradients), (here, expected) = (gradients_on(device, attack_tasks) for device in (ACCELERATOR, "cpu"))
    assert there == pytest.approx(here, rel=1e-8)
    assert all(torch.allclose(gradients[name], expected[name], atol=1e-8) for name in expected)


@pytest.mark.parametrize("norm", plugins.names("norms"))
def test_attacks_stay_in_the_ball_and_repeat_themselves(norm):
    images, labels = (tensor.to(ACCELERATOR) for tensor in a_batch())
    model, threat = a_model().to(ACCELERATOR).eval(), ThreatModel(norm, 0.1)
    loss_of = LossOf(lambda x: nn.functional.cross_entropy(model(x), labels, reduction="none"))
    runs = [pgd(loss_of, images, threat, generator=torch.Generator(ACCELERATOR).manual_seed(3)) for _ in range(2)]
    # Sums on a GPU may take another order, which turns the sign of a gradient near 0.
    assert torch.isclose(*runs, atol=1e-5).float().mean() > 0.99
    assert (threat.size(runs[0], images) <= 0.1 + 1e-5).all()
    assert (loss_of(runs[0]) > loss_of(images)).all()


def a_loader(pinned=False):
    return DataLoader(TensorDataset(*a_batch(800)), 80, shuffle=True, pin_memory=pinned)


def test_steps_get_the_same_images_of_a_pinned_batch_as_on_the_cpu():
    batches = Batches(DataLoader(TensorDataset(*a_batch(200)), 80, pin_memory=True))
    batches.first()
    batches.cut(32)
    there = list(batches.epoch(0, device=ACCELERATOR))
    for parts, expected in zip(there, batches.epoch(0), strict=True):
        assert all(part.device.type == ACCELERATOR.type for part in parts)
        assert all(torch.equal(part.cpu(), here) for part, here in zip(parts, expected, strict=True))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "auto"])
def test_harden_trains_there_and_the_model_comes_back_where_it_was(precision):
    model = a_model()
    parameters = list(model.parameters())
    before = copy.deepcopy(model.state_dict())
    there = []
    settings = {"norm": "l2", "epochs": 2, "steps": 2, "precision": precision, "progress": False}
    robusttune.harden(
        model, a_loader(pinned=True), on_epoch=lambda _: there.append(parameters[0].device.type), **settings
    )
    assert there == [ACCELERATOR.type] * 2
    assert all(parameter.device.type == "cpu" for parameter in parameters)
    assert all(kept is now for kept, now in zip(parameters, model.parameters(), strict=True))
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    assert not torch.equal(before["0.weight"], model[0].weight)


def test_a_model_that_is_there_stays_there_and_evaluates_as_on_the_cpu():
    model = a_model().to(ACCELERATOR)
    robusttune.harden(model, a_loader(), norm="linf", epochs=2, steps=2, progress=False)
    assert next(model.parameters()).device.type == ACCELERATOR.type
    there = robusttune.evaluate(model, a_loader(), "clean", progress=False)
    here = robusttune.evaluate(model.cpu(), a_loader(), "clean", device="cpu", progress=False)
    assert there[0].value == pytest.approx(here[0].value, abs=0.02)  # TF32 tips answers that hang in the balance


def test_augmentations_run_there_and_leave_its_random_state():
    if ACCELERATOR.type != "cuda":
        pytest.skip("only CUDA's random state is kept")
    state = torch.cuda.get_rng_state()
    robusttune.harden(a_model(), a_loader(), norm="l2", epochs=1, steps=1, augment="standard", progress=False)
    assert torch.equal(torch.cuda.get_rng_state(), state)


def test_a_run_goes_on_after_it_was_stopped(tmp_path):
    class Enough(Exception):
        pass

    def stop(_):
        raise Enough

    settings = {"norm": "l2", "epochs": 2, "steps": 1, "progress": False, "out": tmp_path / "run"}
    with pytest.raises(Enough):
        robusttune.harden(a_model(), a_loader(), on_epoch=stop, **settings)
    seen = []
    robusttune.harden(a_model(), a_loader(), on_epoch=seen.append, resume=True, **settings)
    assert [facts["epoch"] for facts in seen] == [2]


@pytest.mark.parametrize("name", plugins.names("corruptions"))
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_corruptions_there_are_those_of_the_cpu(name, severity):
    images, corruption = photographs(224), plugins.find("corruptions", name)
    there, here = (
        corruption(images.to(device), severity, torch.Generator(device).manual_seed(0)).cpu()
        for device in (ACCELERATOR, torch.device("cpu"))
    )
    if corruption.draw is None:
        # Whole levels may be rounded the other way, and JPEG's coefficients with them.
        assert (there - here).abs().mean() < 1e-3
        return
    far = [(changed - images).square().mean((1, 2, 3)).sqrt() for changed in (there, here)]
    assert far[0].mean() == pytest.approx(float(far[1].mean()), rel=0.25)
    assert there.mean() == pytest.approx(float(here.mean()), abs=0.06)
    again = corruption(images.to(ACCELERATOR), severity, torch.Generator(ACCELERATOR).manual_seed(0)).cpu()
    assert torch.equal(there, again)


@contextmanager
def no_waiting():
    """Make each wait for the device inside this context an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that this mode is a prototype
        try:
            torch.cuda.set_sync_debug_mode("error")
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", plugins.names("corruptions"))
def test_corruptions_wait_for_the_device_only_the_first_time(name):
    if ACCELERATOR.type != "cuda":
        pytest.skip("only CUDA tells of waiting")
    images, generator = photographs(64).to(ACCELERATOR), torch.Generator(ACCELERATOR)
    corruption = plugins.find("corruptions", name)
    first = corruption(images, 3, generator.manual_seed(0))
    with no_waiting():
        again = corruption(images, 3, generator.manual_seed(0))
    assert torch.equal(first, again)


@pytest.mark.parametrize("name", plugins.names("augmentations"))
def test_augmentations_there_give_images(name):
    images = photographs(32).to(ACCELERATOR)
    changed = applied(chosen_augment(name, images), images, torch.Generator().manual_seed(0))
    assert changed.device.type == ACCELERATOR.type
    assert 0 <= changed.min() <= changed.max() <= 1
    assert not torch.equal(changed, images)


needs_cuda = pytest.mark.skipif(
    ACCELERATOR is None or ACCELERATOR.type != "cuda", reason="CUDA graphs and fused optimisers need CUDA"
)


def steps_there(attack_tasks, *, dtype, replays, autocast=None, folds=False):
    """The loss terms and the weights after steps on batches of 16, and of 11, and the graphs that were made."""
    model = a_model().to(ACCELERATOR, dtype)
    images, labels = (tensor.to(ACCELERATOR) for tensor in a_batch(64))
    images = images.to(dtype)
    settings = {"steps": 3, "attack_tasks": attack_tasks, "tasks": BOTH, "images": images[:16]}
    robust_loss = RobustLoss(model, ThreatModel("l2", 0.5), **settings)
    graphs = Graphs() if replays else None
    robust_loss.fold(images[:16] if folds else None)
    robust_loss.passes.replay(graphs)
    optimizer = torch.optim.SGD(robust_loss.parameters(), 0.05)
    losses = []
    for rows in (slice(0, 16), slice(16, 32), slice(32, 43), slice(43, 59), slice(0, 16), slice(5, 16)):
        optimizer.zero_grad()
        with torch.autocast("cuda", autocast or torch.bfloat16, enabled=autocast is not None):
            out = robust_loss(images[rows], labels[rows])
        out["loss"].backward()
        optimizer.step()
        losses.append(out["loss"].detach())
    return torch.stack(losses), dict(robust_loss.state_dict()), graphs


@needs_cuda
@pytest.mark.parametrize("folds", [False, True])
@pytest.mark.parametrize("attack_tasks", ["none", "separate", "joint"])
def test_replayed_steps_are_those_without_graphs(attack_tasks, folds, caplog):
    losses, weights, _ = steps_there(attack_tasks, dtype=torch.float64, replays=False, folds=folds)
    again, replayed, graphs = steps_there(attack_tasks, dtype=torch.float64, replays=True, folds=folds)
    assert "CUDA graph here" not in caplog.text
    assert graphs.works
    assert graphs._graphs
    assert torch.allclose(losses, again, rtol=1e-8)
    assert all(torch.allclose(value, replayed[name], rtol=1e-6, atol=1e-9) for name, value in weights.items())


@needs_cuda
@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16])
def test_replayed_steps_in_short_formats_lose_as_much(autocast):
    losses, _, _ = steps_there("joint", dtype=torch.float32, replays=False, autocast=autocast)
    again, _, graphs = steps_there("joint", dtype=torch.float32, replays=True, autocast=autocast)
    assert graphs.works
    assert graphs._graphs
    assert torch.allclose(losses, again, rtol=2e-2)


@needs_cuda
def test_gradients_through_a_graph_are_the_models_own():
    model = a_model().to(ACCELERATOR).double().eval().requires_grad_(False)
    graphs = Graphs()
    graphs.expect(model)

    def run(inputs):
        return (model(inputs),)

    for number in range(4):
        images = torch.rand(8, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(number))
        images = images.to(ACCELERATOR).requires_grad_()
        found, own = (
            torch.autograd.grad(each[0].square().sum(), images)[0] for each in (graphs(run, images), run(images))
        )
        assert torch.allclose(found, own, rtol=1e-9)
        with torch.no_grad():
            model[0].weight.mul_(1.1)  # as an optimiser does, in place
    assert graphs._graphs


@needs_cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_harden_replays_graphs_and_updates_fused(precision, caplog):
    caplog.set_level("INFO", "robusttune")
    for optimizer in ("sgd", "adamw"):
        model = a_model()
        settings = {"norm": "l2", "epochs": 2, "steps": 2, "tune": True, "precision": precision, "progress": False}
        robusttune.harden(model, a_loader(pinned=True), optimizer=optimizer, **settings)
        assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    assert "the attack's passes are replayed as CUDA graphs" in caplog.text
    assert "CUDA graph here" not in caplog.text


@needs_cuda
def test_graphs_are_chosen_by_timing_and_leave_no_memory_behind(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(autotune, "WORTH_MEASURING", 2)
    caplog.set_level("INFO", "robusttune")
    loader = DataLoader(TensorDataset(*a_batch(800)), 80, shuffle=True, pin_memory=True, num_workers=2)
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    settings = {"norm": "l2", "steps": 5, "tune": "auto", "progress": False, "out": tmp_path / "run"}
    robusttune.harden(a_model(), loader, epochs=2, **settings)
    robusttune.harden(a_model(), loader, epochs=3, resume=True, **settings)
    assert "CUDA graph here" not in caplog.text
    gc.collect()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before + 2**21


@needs_cuda
def test_the_format_chosen_is_bf16_where_there_are_units_for_it():
    able = torch.cuda.get_device_capability() >= (8, 0)
    assert chosen_precision("auto", torch.device("cuda")).name == ("bf16" if able else "fp32")
