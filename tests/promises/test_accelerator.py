"""The library on a device that is not the CPU to torch: nothing is forgotten on the CPU, and no training step waits for it."""

from collections import Counter
from functools import partial
from importlib.metadata import version

import pytest
import timm
import torch
from covering_set import RUNS, settings_of
from guarded import small_model
from pretend_device import NAME, Copies, Waits
from short_runs import a_model, digits, same, weights_of
from short_runs import hardened as short_run
from torch import nn
from torch.utils.data import DataLoader, Subset
from whole_photographs import photographs

import robusttune
from robusttune import Monitor, RobustLoss, ThreatModel, plugins
from robusttune.attacks.pgd import pgd
from robusttune.augmentations._augment import applied, chosen_augment
from robusttune.training import range_test

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")
BOTH = {"rotation": 0.5, "jigsaw": 0.5}


def batches(count=60, size=20):
    return DataLoader(digits(count), size)


def more():
    """Images that are in neither loader of `hardened`."""
    return DataLoader(Subset(digits(120), range(80, 120)), 20)


def hardened(model=None, **settings):
    return short_run(model, batches(), val_loader=batches(20), **settings)


HARDEN = {
    "as it is": {},
    "trades": {"objective": "trades", "tasks": BOTH, "attack_tasks": "joint", "views": "all", "augment": "standard",
               "ema": 0.9, "clip_grad": 1.0, "precision": "bf16"},
    "mart": {"objective": "mart", "tasks": {"patch_rotation": 0.5}, "attack_tasks": "separate", "augment": "augmix",
             "attack": "nfgsm", "steps": None, "accumulate": 2},
    "apgd": {"tasks": BOTH, "attack_tasks": "none", "augment": "prime", "attack": "apgd", "awp": 0.01, "eps_ramp": True,
             "optimizer": "adamw", "precision": "bf16"},
    "wide_pgd": {"tasks": BOTH, "attack_tasks": "separate", "augment": "noise", "attack": "wide_pgd", "channels_last": True,
                 "tune": True, "time_budget": 600.0},
    "corrupted": {"augment": plugins.find("corruptions", "fog"), "micro_batch": 10, "checkpointing": True,
                  "criterion": nn.CrossEntropyLoss(torch.ones(10), reduction="none")},
    "own teacher": {"unlabeled_loader": more(), "teacher": "self"},
    "no teacher": {"unlabeled_loader": more(), "teacher": None, "tasks": BOTH},
    "a teacher": {"unlabeled_loader": more(), "teacher": a_model(1).eval(), "tasks": BOTH},
}  # fmt: skip


@pytest.mark.parametrize("name", HARDEN)
def test_no_step_of_harden_waits(step_waits, name):
    if "augment" in HARDEN[name] and version("kornia") < "0.9":
        pytest.skip("Kornia waits for its own numbers before 0.9")
    model = a_model()
    parameters = list(model.parameters())
    hardened(model, **HARDEN[name])
    assert not step_waits
    assert all(
        kept is now and now.device.type == "cpu" for kept, now in zip(parameters, model.parameters(), strict=True)
    )


def test_batches_are_copied_whole_and_once_where_steps_take_parts_of_them(step_waits):
    more = DataLoader(digits(120), 12)
    with Copies() as copies:
        loader = DataLoader(digits(63), 21)
        short_run(
            loader=loader, update_batch=8, val_loader=batches(20), unlabeled_loader=more, teacher=None, tasks=BOTH
        )
    images = [copy for copy in copies.noted if len(copy.shape) == 4 and not copy.waits]
    assert all(copy.contiguous for copy in images)
    # An epoch of three batches, after a look at the first one; images without labels in as many parts, three at a time.
    assert [copy.shape[0] for copy in images if copy.shape[0] != 20] == [21, *[21, 12] * 3]
    assert not step_waits


@pytest.mark.parametrize("first", ["there", "here"])
def test_a_run_is_resumed_on_another_device_in_the_middle_of_an_epoch(accelerator, tmp_path, first):
    class Broken(Exception):
        pass

    class Breaking(list):
        def __iter__(self):
            for number, batch in enumerate(super().__iter__()):
                if number == 3 and not seen:
                    seen.append("broken")
                    raise Broken
                yield batch

    seen, epochs = [], []
    loader = Breaking(batches(100))
    settings = {"val_loader": batches(20), "ema": 0.9, "optimizer": "adamw", "epochs": 2, "checkpoint_every": 1}
    settings |= {"out": tmp_path / "run", "update_batch": None, "on_epoch": epochs.append}
    module = torch.get_device_module(NAME)
    module.switch(first == "there")
    with pytest.raises(Broken):
        short_run(loader=loader, **settings)
    module.switch(first == "here")  # the first device has gone
    model = short_run(loader=loader, resume=True, **settings)
    assert [facts["step"] for facts in epochs] == [5, 10]
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_a_range_test_runs_there_and_leaves_no_trace(accelerator, monkeypatch):
    for name, value in {"STEEP": 0.0, "LEAST": 0, "STEPS": 4, "JUDGED": 20}.items():
        monkeypatch.setattr(range_test, name, value)
    settings = {"steps": None, "tasks": BOTH, "micro_batch": 10}
    models = [hardened(a_model(), **settings, **more) for more in ({}, {"clip_grad": 1.0})]
    assert same(*(weights_of(model) for model in models))


def test_waits_do_not_grow_with_the_steps(accelerator):
    noted = []
    for steps in (1, 3):
        with Waits() as waits:
            hardened(max_steps=steps)
        noted.append(Counter(wait for wait in waits.noted if wait.place.startswith("training/")))
    assert noted[0].total() > 0
    assert noted[1] - noted[0] == Counter()


@pytest.mark.parametrize("package", ["torchattacks", "foolbox"])
def test_attacks_of_other_packages_run_there(step_waits, package):
    pytest.importorskip(package)
    hardened(attack=package, tasks=None)
    assert {wait.place.split(":")[0] for wait in step_waits} <= {f"attacks/{package}.py"}


def test_fp16_waits_once_a_step_for_whether_gradients_are_finite(step_waits):
    hardened(precision="fp16")
    assert {wait.place.split()[-1] for wait in step_waits} == {"_step"}
    assert len(step_waits) == 2


def test_no_step_of_pretrain_waits(step_waits):
    robusttune.pretrain(a_model(), batches(), epochs=1, progress=False)
    assert not step_waits


def no_chance(loss_of, images, threat, *, generator):
    """Random starts differ from device to device."""
    return pgd(loss_of, images, threat, generator=generator, steps=3, random_start=False)


@pytest.mark.parametrize("attack_tasks", ["none", "separate", "joint"])
def test_a_loop_of_ones_own_has_the_losses_and_gradients_of_the_cpu(accelerator, attack_tasks):
    results = []
    for device in (accelerator, torch.device("cpu")):
        settings = {
            "attack": no_chance,
            "attack_tasks": attack_tasks,
            "tasks": BOTH,
            "images": next(iter(batches()))[0],
        }
        robust_loss = RobustLoss(a_model().double().to(device), ThreatModel("l2", 0.5), **settings)
        optimizer = torch.optim.SGD(robust_loss.parameters(), 0.1, momentum=0.9)
        losses = []
        for images, labels in batches():
            out = robust_loss(images.double().to(device), labels.to(device))
            optimizer.zero_grad()
            out["loss"].backward()
            optimizer.step()
            losses.append(out["loss"].detach())
        results.append((torch.stack(losses).cpu(), robust_loss.state_dict()))
    (there, weights), (here, expected) = results
    assert torch.allclose(there, here, rtol=1e-9)
    assert all(torch.allclose(weights[name].cpu(), value, atol=1e-9) for name, value in expected.items())


def evaluation(name, **settings):
    return partial(plugins.find("evaluations", name), **settings)


EVALUATIONS = [
    "clean",
    "pretext",
    evaluation("quick"),
    evaluation("sweep", eps=[0.1], norms=["linf", "l2"], steps=2),
    evaluation("strong", steps=2, target_steps=1),
    evaluation("noise", draws=2),
    evaluation("corruptions", names=["fog", "gaussian_noise", "jpeg_compression"], severities=[3]),
    evaluation("ood", others=[photographs(8).mean(1, keepdim=True)]),
]


def measured(model, which, device="auto", count=40, **settings):
    return robusttune.evaluate(model, batches(count), which, norm="linf", progress=False, device=device, **settings)


def test_evaluations_run_there_and_measure_what_they_do_on_the_cpu(accelerator):
    model = hardened(steps=1, tasks=BOTH, epochs=3, lr=0.05)
    heads = RobustLoss(model, ThreatModel("linf", 0.1), tasks=BOTH, images=next(iter(batches()))[0])
    with Waits() as waits:
        there = measured(model, EVALUATIONS, heads=heads)
    here = measured(model, EVALUATIONS, "cpu", heads=heads)
    assert [record.value for record in there] == pytest.approx([record.value for record in here], abs=1e-6)
    assert {record.evaluation for record in there} > {"clean", "sweep", "strong", "noise", "ood"}
    assert waits.noted


def test_certificates_are_computed_there(accelerator):
    pytest.importorskip("scipy")
    assert measured(a_model(), evaluation("certified", draws=20, choosing_draws=10))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sanity", "autoattack"])
def test_long_evaluations_run_there(accelerator, name):
    pytest.importorskip("torchattacks")
    settings = {"sanity": {"images": 10, "steps": 2}, "autoattack": {"queries": 10}}[name]
    there, here = (measured(a_model(), evaluation(name, **settings), device, count=10) for device in ("auto", "cpu"))
    assert [record.metric for record in there] == [record.metric for record in here]
    if name == "autoattack":
        assert [record.value for record in there] == pytest.approx([record.value for record in here], abs=0.03)


def test_a_monitor_watches_there(accelerator):
    model = small_model(1, 10).eval()
    images = next(iter(batches(200, 200)))[0]
    heads = RobustLoss(model, ThreatModel("linf", 0.1), tasks=BOTH, images=images[:4])
    here = Monitor(model, images.split(50), heads=heads)(images[:50])
    model.to(accelerator)
    there = Monitor(model, images.split(50), heads=heads.to(accelerator))(images[:50].to(accelerator))
    assert there.alarm == here.alarm
    assert there.values == pytest.approx(here.values, rel=1e-4)


@pytest.mark.parametrize("name", plugins.names("corruptions"))
def test_corruptions_there_are_those_of_the_cpu_and_do_not_wait(accelerator, name):
    images, corruption = photographs(32), plugins.find("corruptions", name)
    results = []
    for device in (accelerator, torch.device("cpu")):
        results = [*results, corruption(images.to(device), 3, torch.Generator(device).manual_seed(0)).cpu()]
    images = images.to(accelerator)
    with Waits(refuse=True):
        corruption(images, 3, torch.Generator(accelerator).manual_seed(0))
    if name != "shot_noise":  # whose number of draws depends on the images: on the CPU a child generator draws them
        assert torch.allclose(*results, atol=1e-4)


@pytest.mark.skipif(version("kornia") < "0.9", reason="Kornia waits for its own numbers before 0.9")
@pytest.mark.parametrize("side", [32, 160])
@pytest.mark.parametrize("name", plugins.names("augmentations"))
def test_augmentations_there_do_not_wait(accelerator, name, side):
    images = photographs(side).to(accelerator)
    augment = chosen_augment(name, images)
    applied(augment, images, torch.Generator().manual_seed(0))
    with Waits(refuse=True):
        changed = applied(augment, images, torch.Generator().manual_seed(0))
    assert changed.device == accelerator


# Wider.


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS, ids=lambda run: "-".join(map(str, run.values())))
def test_choices_go_together_there(step_waits, run):
    settings = {**settings_of(run), "compile": False}
    hardened(eps=0.05, **{"steps": None if settings["attack"] == "nfgsm" else 2}, **settings)
    assert {wait.place.split()[-1] for wait in step_waits} <= ({"_step"} if settings["precision"] == "fp16" else set())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext", "test_mambaout"])
def test_models_of_timm_train_there(step_waits, name):
    model = (
        timm.create_model(name, num_classes=2, img_size=64) if "vit" in name else timm.create_model(name, num_classes=2)
    )
    images = photographs(64)
    loader = [(images, torch.tensor([0, 1, 0, 1, 0, 1]))] * 3
    robusttune.harden(model, loader, tasks=BOTH, norm="linf", epochs=1, steps=1, precision="bf16", progress=False)
    assert not step_waits
