"""RobustTask as timm's training script uses a task: optimizer over the trainable module, checkpoints, resume, averaged weights."""

import os
import runpy
import sys

import pytest
import timm
import torch
from timm.optim import create_optimizer_v2
from timm.utils import CheckpointSaver
from tiny_digits import THREAT, a_robust_loss, digits, same_tensors, tiny_net

pytest.importorskip("timm.task", reason="timm has no tasks yet")

from timm.task import load_task_ema_checkpoint, resume_task_checkpoint

from robusttune import RobustLoss
from robusttune.integration.timm import RobustTask


def begun(**settings):
    """What timm's script makes before its first epoch."""
    task = RobustTask(a_robust_loss(tiny_net(), **settings))
    task.setup_ema(decay=0.5)
    return task, create_optimizer_v2(task.get_trainable_module(), opt="momentum", lr=0.05, weight_decay=0.01)


def stepped(task, optimizer, steps):
    images, labels = digits(0, 16)
    task.get_trainable_module().train()
    for _ in range(steps):
        optimizer.zero_grad()
        task(images, labels)["loss"].backward()
        optimizer.step()
        task.update_ema()


def test_the_scripts_optimizer_trains_the_heads():
    task, optimizer = begun()
    trained = {id(each) for group in optimizer.param_groups for each in group["params"]}
    assert trained == {id(each) for each in task.robust_loss.parameters()}
    assert {id(each) for each in task.get_clip_parameters()} == trained


def test_heads_of_weight_0_do_not_count_in_gradient_clipping():
    model = tiny_net()
    task = RobustTask(a_robust_loss(model, tasks={"rotation": 0.5, "jigsaw": 0.0}))
    felt = list(task.robust_loss.heads["rotation"].parameters())
    for excluded in (0, 2):  # of the classifier, as timm's adaptive clipping asks for
        clipped = task.get_clip_parameters(exclude_head=bool(excluded))
        weights = list(model.parameters())
        assert same_objects(clipped, weights[: len(weights) - excluded] + felt)


def test_layer_decay_gives_the_model_the_rates_that_it_has_alone():
    for name in ("test_vit", "test_resnet"):
        model = timm.create_model(name, num_classes=4, **({"img_size": 32} if name == "test_vit" else {}))
        task = RobustTask(RobustLoss(model, THREAT, images=torch.rand(2, 3, 32, 32), steps=1))
        alone, together = (rates_by_layer(each) for each in (model, task.get_trainable_module()))
        assert len(set(alone.values())) > 4
        assert {each: together[each] for each in alone} == alone
        assert {together[id(each)] for each in task.robust_loss.heads.parameters()} == {1.0}


def rates_by_layer(module):
    """The factors of learning rates that timm's script gives to parameters, by their ids."""
    groups = create_optimizer_v2(module, opt="sgd", lr=0.1, layer_decay=0.5).param_groups
    return {id(each): group["lr_scale"] for group in groups for each in group["params"]}


def same_objects(first, second):
    return [id(each) for each in first] == [id(each) for each in second]


def test_a_checkpoint_is_of_the_plain_model_and_resumes_exactly(tmp_path):
    straight, optimizer = begun()
    stepped(straight, optimizer, 2)
    saver = CheckpointSaver(
        straight.get_trainable_module(),
        optimizer,
        task=straight,
        checkpoint_dir=str(tmp_path),
        recovery_dir=str(tmp_path),
    )
    saver.save_checkpoint(0, metric=1.0)
    saved = torch.load(tmp_path / "last.pth.tar", weights_only=False)
    assert list(saved["state_dict"]) == list(saved["state_dict_ema"]) == list(tiny_net().state_dict())
    stepped(straight, optimizer, 1)

    later, other = begun()
    assert resume_task_checkpoint(later, str(tmp_path / "last.pth.tar"), optimizer=other, log_info=False) == 1
    load_task_ema_checkpoint(later, str(tmp_path / "last.pth.tar"))
    stepped(later, other, 1)
    assert same_tensors(later.robust_loss.state_dict(), straight.robust_loss.state_dict())
    averaged = [task.get_eval_model(ema=True).state_dict() for task in (later, straight)]
    assert same_tensors(*averaged)
    assert not same_tensors(averaged[0], later.get_eval_model().state_dict())
    assert not isinstance(later.get_eval_model(ema=True), RobustLoss)


def test_parameters_without_weight_decay_keep_their_names():
    model = timm.create_model("test_vit", in_chans=1, num_classes=10, img_size=32)
    task = RobustTask(RobustLoss(model, THREAT, images=torch.rand(2, 1, 32, 32), tasks=None, steps=1))
    groups = create_optimizer_v2(task.get_trainable_module(), opt="sgd", lr=0.1, weight_decay=0.1).param_groups
    decayed = {id(each): group["weight_decay"] for group in groups for each in group["params"]}
    assert decayed[id(model.pos_embed)] == 0
    assert decayed[id(model.head.weight)] == 0.1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif("TIMM_TRAIN" not in os.environ, reason="set TIMM_TRAIN to timm's train.py, which its wheel lacks")
def test_timms_own_script_hardens_saves_and_resumes(tmp_path, monkeypatch, folder_of_digits):
    made = []

    def task(model, **_):
        made.append(RobustTask(RobustLoss(model, THREAT, mean=(0.5,), std=(0.5,), tasks={"rotation": 0.5}, steps=1)))
        return made[-1]

    monkeypatch.setattr("timm.task.ClassificationTask", task)
    words = f"--data-dir {folder_of_digits} --model test_resnet --in-chans 1 --input-size 1 32 32 --num-classes 2 --mean 0.5"
    words += f" --std 0.5 --batch-size 8 --workers 1 --model-ema --experiment a --output {tmp_path} --device cpu --warmup-epochs 0"
    for epochs, more in ((1, ""), (2, f" --resume {tmp_path}/a/last.pth.tar --experiment b")):
        monkeypatch.setattr(sys, "argv", ["train.py", *f"{words} --epochs {epochs}{more}".split()])
        runpy.run_path(os.environ["TIMM_TRAIN"], run_name="__main__")
    assert made[1].robust_loss.calls == 2 * made[0].robust_loss.calls > 0
    saved = torch.load(tmp_path / "b" / "last.pth.tar", weights_only=False)
    assert list(saved["state_dict"]) == list(timm.create_model("test_resnet", in_chans=1, num_classes=2).state_dict())
    assert not same_tensors(saved["task_state"]["heads"], made[0].robust_loss.heads.state_dict())


@pytest.fixture
def folder_of_digits(tmp_path):
    """Zeros and ones as pictures, in folders as timm reads them."""
    from PIL import Image

    images, labels = digits(0, 200)
    for split in ("train", "validation"):
        for row in torch.nonzero(labels < 2).flatten()[:16].tolist():
            place = tmp_path / "images" / split / str(int(labels[row]))
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray((images[row, 0] * 255).byte().numpy()).resize((32, 32)).save(place / f"{row}.png")
    return tmp_path / "images"
