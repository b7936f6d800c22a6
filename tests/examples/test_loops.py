"""RobustLoss in other people's loops: the gradients of harden's own step, and each example from end to end."""

import copy
import re
import runpy
import sys
import warnings
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from timm.data import FastCollateMixup, Mixup, create_dataset, create_loader
from timm.models import load_checkpoint
from timm.utils import CheckpointSaver, ModelEmaV3
from torch import nn

import robusttune
from robusttune import RobustLoss, ThreatModel
from robusttune.data.pixels import find_pixels
from robusttune.evaluations.sweep import sweep

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = ["plain", "accelerate", "timm", "lightning", "transformers"]
THREAT = ThreatModel("linf", 0.1)
SETTINGS = {"tasks": {"rotation": 0.5, "jigsaw": 0.5}, "steps": 3, "seed": 5}


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


def hardens_own(settings):
    """What one step of harden with a learning rate of 1 changes, which is the gradient."""
    model, (images, labels) = net().train(), a_batch()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    robusttune.harden(
        model,
        [(images, labels)],
        norm="linf",
        eps=0.1,
        epochs=1,
        preset="thorough",
        update_batch=None,
        optimizer=lambda parameters: torch.optim.SGD(parameters, 1.0),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0),
        ema=0,
        eps_ramp=False,
        augment="none",
        progress=False,
        **settings,
    )
    return {name: before[name] - p.detach() for name, p in model.named_parameters()}


def plain(model, settings):
    robust_loss = RobustLoss(model, THREAT, images=a_batch()[0], **settings).train()
    robust_loss(*a_batch())["loss"].backward()


def accelerated(model, settings):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    robust_loss = accelerator.prepare(RobustLoss(model, THREAT, images=a_batch()[0], **settings).train())
    accelerator.backward(robust_loss(*a_batch())["loss"])


def of_timm(model, settings):
    pytest.importorskip("timm.task", reason="timm has no tasks yet")
    from robusttune.integration.timm import RobustTask

    RobustTask(RobustLoss(model, THREAT, images=a_batch()[0], **settings)).train()(*a_batch())["loss"].backward()


def of_lightning(model, settings):
    from loop_lightning import Classifier, trainer

    from robusttune.integration.lightning import RobustTraining

    module = Classifier(model)
    robust_loss = RobustLoss(module, THREAT, images=a_batch()[0], **settings)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*a_batch()), 16)
    trainer(RobustTraining(robust_loss), max_epochs=1).fit(module, loader)  # which leaves the gradients


def of_transformers(model, settings):
    from loop_transformers import settings as quiet

    from robusttune.integration.transformers import RobustTrainer

    robust_loss = RobustLoss(model, THREAT, images=a_batch()[0], **settings)
    trainer = RobustTrainer(robust_loss, quiet("unused"))
    images, labels = a_batch()
    trainer.compute_loss(model.train(), {"pixel_values": images, "labels": labels}).backward()


@pytest.mark.parametrize("attack_tasks", ["none", "joint"])
@pytest.mark.parametrize("way", [plain, accelerated, of_timm, of_lightning, of_transformers])
def test_every_loop_has_the_gradients_of_hardens_own_step(way, attack_tasks, examples):
    settings = {**SETTINGS, "attack_tasks": attack_tasks}
    expected, model = hardens_own(settings), net().train()
    way(model, settings)
    for name, parameter in model.named_parameters():
        assert (parameter.grad - expected[name]).abs().max() < 1e-6, name
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 1e-2


def test_lightning_validates_in_inference_mode_as_outside_of_it(examples):
    from loop_lightning import Classifier, trainer

    from robusttune.integration.lightning import RobustTraining

    seen = []

    class Watched(Classifier):
        def validation_step(self, batch, index):
            seen.append(torch.is_inference_mode_enabled())
            super().validation_step(batch, index)

    module = Watched(net())
    robust_loss = RobustLoss(module, THREAT, images=a_batch()[0], **SETTINGS)
    batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*a_batch()), 8)
    (found,) = trainer(RobustTraining(robust_loss)).validate(module, batches, verbose=False)
    assert seen == [True, True]
    with torch.no_grad():
        robust_loss.eval()
        right = [robust_loss(images, labels)["output"].argmax(1) == labels for images, labels in batches]
    assert found["val_robust_accuracy"] == pytest.approx(float(torch.cat(right).float().mean()))


def test_accelerates_loop_goes_on_exactly_where_it_was(examples, tmp_path):
    from loop_accelerate import hardened

    finals = []
    for name, parts in (("straight", [3]), ("broken", [1, 3])):
        for epochs in parts:
            torch.manual_seed(3)
            robust_loss = RobustLoss(net(), THREAT, images=a_batch()[0], **SETTINGS)
            data = torch.utils.data.TensorDataset(*a_batch())
            loader = torch.utils.data.DataLoader(data, 8, shuffle=True)
            hardened(robust_loss, loader, tmp_path / name, epochs)
        finals.append(robust_loss.state_dict())
    assert robust_loss.calls == 6
    assert all(torch.equal(each, finals[1][key]) for key, each in finals[0].items())


@pytest.fixture
def folder(tmp_path):
    """Two classes of grey pictures."""
    for row, image in enumerate((a_batch()[0][:, 0] * 255).byte()):
        place = tmp_path / "images" / str(row % 2)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(place / f"{row}.png")
    return tmp_path / "images"


MEAN, STD = (0.4,), (0.25,)


def timms_loader(folder, *, prefetch, mixup):
    """timm's loader as its training script makes it; with the prefetcher, mixup is part of the collation."""
    data = create_dataset("", root=str(folder), input_img_mode="L")
    collate = FastCollateMixup(mixup_alpha=1.0, num_classes=10) if mixup else None
    settings = {"is_training": True, "mean": MEAN, "std": STD, "num_workers": 0, "collate_fn": collate}
    return create_loader(data, (1, 32, 32), 8, use_prefetcher=prefetch, device=torch.device("cpu"), **settings)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # timm leaves files open
@pytest.mark.parametrize("prefetch", [True, False])
def test_timms_prefetcher_mixup_ema_and_checkpoints_keep_working(prefetch, folder, tmp_path, examples):
    pytest.importorskip("timm.task", reason="timm has no tasks yet")
    from robusttune.integration.timm import RobustTask

    model = timm.create_model("test_resnet", in_chans=1, num_classes=10)
    task = RobustTask(RobustLoss(model, THREAT, mean=MEAN, std=STD, **SETTINGS))
    task.setup_ema(decay=0.5)
    assert isinstance(task.get_trainable_module(ema=True), ModelEmaV3)
    start = {name: each.clone() for name, each in model.state_dict().items()}
    optimizer = torch.optim.SGD(task.parameters(), 0.1)
    loader = timms_loader(folder, prefetch=prefetch, mixup=prefetch)
    assert type(loader).__name__ == ("PrefetchLoader" if prefetch else "DataLoader")
    mixup = Mixup(mixup_alpha=1.0, num_classes=10)
    for images, labels in loader:
        if not prefetch:
            images, labels = mixup(images, labels)
        assert labels.shape == (8, 10)
        assert images.min() < -0.1  # normalised
        optimizer.zero_grad()
        task.train()(images, labels)["loss"].backward()
        optimizer.step()
        task.update_ema()
    averaged = task.get_eval_model(ema=True).state_dict()
    assert any(not torch.equal(start[name], each) for name, each in averaged.items())
    assert any(not torch.equal(model.state_dict()[name], each) for name, each in averaged.items())

    saver = CheckpointSaver(model, optimizer, task=task, checkpoint_dir=str(tmp_path), recovery_dir=str(tmp_path))
    saver.save_checkpoint(0, metric=1.0)
    again = timm.create_model("test_resnet", in_chans=1, num_classes=10, checkpoint_path=tmp_path / "last.pth.tar")
    assert all(torch.equal(averaged[name], each) for name, each in again.state_dict().items())
    load_checkpoint(again, str(tmp_path / "last.pth.tar"), use_ema=False)
    assert all(torch.equal(model.state_dict()[name], each) for name, each in again.state_dict().items())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_prefetchers_255_fold_mean_and_std_are_understood(folder):
    loader = timms_loader(folder, prefetch=True, mixup=False)
    assert loader.mean.item() == pytest.approx(0.4 * 255)
    images = next(iter(loader))[0]
    pixels = find_pixels(images, loader)
    assert (pixels.mean.item(), pixels.std.item()) == (pytest.approx(0.4), pytest.approx(0.25))
    assert pixels.normalized
    model = timm.create_model("test_resnet", in_chans=1, num_classes=10)
    quick = {"max_steps": 1, "steps": 1, "tasks": None, "progress": False}
    assert robusttune.harden(model, loader, norm="linf", eps=0.1, **quick) is model


def test_a_model_of_transformers_is_hardened_and_evaluated_as_it_is(examples):
    from loop_transformers import new_model

    model, (images, labels) = new_model(), a_batch()
    before = model.state_dict()["classifier.1.weight"].clone()
    batches = [{"pixel_values": images, "labels": labels}]
    assert robusttune.harden(model, batches, norm="l2", epochs=1, steps=1, progress=False) is model
    assert not torch.equal(model.state_dict()["classifier.1.weight"], before)
    records = robusttune.evaluate(model, batches, ["clean", partial(sweep, steps=1)], norm="l2", progress=False)
    assert records[0].images == 16
    assert model(images).logits.shape == (16, 10)


@pytest.fixture(scope="module")
def start():
    """What the scripts have in common: the ordinarily trained model, the images, and the figures before hardening."""
    return {}


def once(start, name, make):
    """Make it in the first script that asks; each script gets its own copy, and the chance that would follow."""

    def made(*arguments):
        if name not in start:
            start[name] = copy.deepcopy(make(*arguments)), torch.get_rng_state()
        found, state = copy.deepcopy(start[name])
        torch.set_rng_state(state)
        return found

    return made


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_the_script_makes_a_model_robust(name, start, examples, monkeypatch, capsys):
    import loops

    if name == "timm":
        pytest.importorskip("timm.task", reason="timm has no tasks yet")
    ordinary = loops.measured
    first = once(start, "before", ordinary)
    if name != "transformers":  # which has a model of its own
        monkeypatch.setattr(loops, "scene", once(start, "scene", loops.scene))
        calls = iter([first, ordinary])
        monkeypatch.setattr(loops, "measured", lambda *given: next(calls)(*given))
    monkeypatch.setattr(sys, "argv", [f"loop_{name}.py"])
    with torch.random.fork_rng():
        runpy.run_path(str(EXAMPLES / f"loop_{name}.py"), run_name="__main__")
    rows = re.findall(r"^\| ([\d.]+) \| ([\d.]+)% \(.*\) \| ([\d.]+)% \(", capsys.readouterr().out, re.MULTILINE)
    assert [eps for eps, *_ in rows] == ["0", "0.05", "0.1", "0.15"]
    assert float(rows[0][1]) > 80
    assert float(rows[2][2]) > float(rows[2][1]) + 5
