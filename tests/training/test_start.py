"""The block at the start of a run: everything that was chosen, from Python; `tests/cli/test_look.py` has the shell's."""

import logging
import re
from functools import partial

import pytest
import torch
from short_runs import a_loader, a_model, hardened
from torch import nn

import robusttune
from robusttune.attacks.pgd import pgd
from robusttune.training.start import model_in_words

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained


@pytest.fixture
def block(caplog):
    """A function that returns the names and values of the one block that was logged since it was last called."""
    caplog.set_level(logging.INFO, "robusttune")

    def read():
        (text,) = [message for message in caplog.messages if message.startswith("data ")]
        caplog.clear()
        rows = [re.split(r"  +", line, maxsplit=1) for line in text.splitlines()]
        assert len({line.index(value) for line, (_, value) in zip(text.splitlines(), rows, strict=True)}) == 1
        return dict(rows)

    return read


def test_everything_that_was_chosen_is_in_one_block(block):
    loader = a_loader(400)
    loader.dataset.classes = list("abcdefghij")
    hardened(
        loader=loader,
        val_loader=a_loader(80),
        norm="linf",
        eps=8 / 255,
        eps_ramp=True,
        epochs=2,
        accumulate=2,
        steps=None,
    )
    shown = block()
    assert shown == {
        "data": "TensorDataset",
        "classes": "10: a, b, c, d, e, f …",
        "images": "400, 40 in a batch, 1x8x8",
        "held out": "80 images of val_loader, to choose the epoch by",
        "model": "Sequential, 3,834 parameters",
        "head": "6, 10 outputs",
        "pixels": "pixels on [0, 1], and so is the model's input",
        "threat": "linf, eps 8/255 (growing)",
        "attack": "nfgsm, late in the run wide_pgd with 2 steps",
        "objective": "adversarial",
        "tasks": "rotation, jigsaw (heads alone, fitted only with out=)",
        "augmentation": "none",
        "optimiser": "sgd lr 0.2, weight decay 0.0005, gradients clipped at 1, weights averaged at 0.995",
        "length": "2 epochs, 10 steps, of 2 batches each",
        "precision": "fp32",
        "device": f"cpu, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() != 1)}",
        "seed": "0",
    }


def images_dimmed(images):
    return images * 0.9


OTHERS = [
    ({"preset": "fast", "steps": None}, {"preset": "fast", "attack": "nfgsm, late in the run pgd with 2 steps"}),
    ({"attack": partial(pgd, steps=1), "steps": None, "tasks": None}, {"attack": "pgd with 1 step", "tasks": "none"}),
    ({"attack": partial(pgd, step_size=0.1), "steps": None}, {"attack": "pgd (step_size=0.1) with 10 steps"}),
    (
        {"augment": images_dimmed, "awp": 0.005},
        {"augmentation": "images_dimmed", "attack": "pgd with 2 steps, awp 0.005"},
    ),
    ({"preset": "joint"}, {"preset": "joint", "tasks": "rotation 0.5, jigsaw 0.5, attack_tasks joint, views 1"}),
    (
        {"preset": "thorough", "steps": None},
        {"attack": "pgd with 10 steps, late in the run wide_pgd with 10 steps", "preset": "thorough"},
    ),
    ({"tasks": {"rotation": 0, "jigsaw": 0.0}}, {"tasks": "rotation, jigsaw (heads alone, fitted only with out=)"}),
    (
        {"tasks": {"rotation": 0.1, "jigsaw": 0.0}, "attack_tasks": "none"},
        {"tasks": "rotation 0.1, attack_tasks none, views 1; jigsaw (heads alone, fitted only with out=)"},
    ),
    ({"augment": "noise"}, {"augmentation": "noise"}),
    ({"objective": "trades"}, {"objective": "trades"}),
    ({"criterion": nn.CrossEntropyLoss()}, {"objective": "adversarial of CrossEntropyLoss"}),
    (
        {"purpose": "corruptions", "norm": None, "eps": None, "augment": "none"},
        {"threat": "l2, eps 0.01443, for corruptions"},
    ),
    ({"optimizer": "adamw", "lr": 0.1, "ema": 0}, {"optimiser": "adamw lr 0.1, weight decay 0.05"}),
    (
        {"unlabeled_loader": a_loader(80), "teacher": None, "tasks": "rotation"},
        {"without labels": "80 images, for the pretext tasks alone"},
    ),
    (
        {"max_steps": 3, "time_budget": 90.0},
        {"length": "at most 1 epoch, 3 steps, of at most 32 images each, 1 min 30 s"},
    ),
]


@pytest.mark.parametrize(("settings", "rows"), OTHERS, ids=[str(each) for each in range(len(OTHERS))])
def test_what_the_user_chose_is_named(settings, rows, block):
    hardened(**{"max_steps": 1, **settings})
    shown = block()
    assert {name: shown[name] for name in rows} == rows


def test_ordinary_training_has_no_preset(block):
    hardened(eps=0, preset="joint", tasks=None, max_steps=1)
    assert "preset" not in block()


def test_images_that_are_held_back_are_counted_and_a_run_without_any_says_so(block):
    hardened(loader=a_loader(800), max_steps=1)
    shown = block()
    assert shown["images"].startswith("760, ")
    assert shown["held out"] == "40 of the training images, to choose the epoch by"
    hardened(loader=[next(iter(a_loader(80)))], max_steps=1)
    shown = block()
    assert (shown["data"], shown["images"]) == ("list", "1 batch, 40 in a batch, 1x8x8")
    assert shown["held out"].startswith(
        "none, so the last epoch will be kept: pass val_loader= to choose the best one (5%"
    )


def test_a_resumed_run_names_its_step_and_its_folder(block, tmp_path):
    def stop(facts):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hardened(out=tmp_path / "a", epochs=2, on_epoch=stop)
    assert "weights" not in block()
    hardened(out=tmp_path / "a", epochs=2, resume=True)
    shown = block()
    assert shown["weights"] == "of step 20 of the run that is resumed"
    assert shown["folder"] == str(tmp_path / "a")


def test_pretrain_has_the_block_too_without_what_it_does_not_choose(block):
    robusttune.pretrain(a_model(), a_loader(), max_steps=1, progress=False)
    shown = block()
    assert shown["threat"] == "none"
    assert shown["tasks"] == "rotation 0.5, jigsaw 0.5, views all"
    assert not {"classes", "held out", "attack", "objective"} & set(shown)
    robusttune.pretrain(a_model(), a_loader(), max_steps=1, norm="l2", eps=0.5, steps=1, progress=False)
    shown = block()
    assert (shown["threat"], shown["attack"]) == ("l2, eps 0.5", "pgd with 1 step")


def test_without_progress_nothing_is_printed_and_with_it_the_block_is(capsys):
    hardened(max_steps=1)
    assert capsys.readouterr().err == ""
    hardened(max_steps=1, progress=True)
    assert "\nthreat        l2, eps 0.3\n" in capsys.readouterr().err


def test_models_are_named_by_architecture_and_frozen_weights_are_counted():
    model = nn.Sequential(nn.Linear(1000, 1000, bias=False), nn.Linear(1000, 10))
    model[1].requires_grad_(False)
    assert model_in_words(model, {}) == "Sequential, 1.01 million parameters, of which 10,010 are frozen"
    model.pretrained_cfg = {"architecture": "resnet18"}
    assert model_in_words(model, {}).startswith("resnet18, ")
    assert model_in_words(model, {"model": "mine:model"}).startswith("mine:model, ")
