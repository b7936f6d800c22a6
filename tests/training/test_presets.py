"""Presets: what they choose, and what a user's own argument changes of it."""

import logging
import re
from pathlib import Path

import pytest
import timm
import torch
from handwritten import digits, loader
from torch import nn

import robusttune
from robusttune.evaluations.sweep import sweep
from robusttune.training.presets import PRESETS, chosen_attacker, images_of_a_step
from robusttune.training.recipe import default_recipe
from robusttune.training.settings import Adversary, Updates, run_settings


@pytest.mark.filterwarnings("ignore:.*held-out accuracy")
def test_the_fast_preset_takes_one_step_and_no_tasks_unless_told_otherwise(caplog):
    caplog.set_level(logging.INFO, "robusttune")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    seen = []
    settings = {"norm": "linf", "eps": 0.1, "progress": False, "on_epoch": seen.append, "val_loader": loader(40)}
    robusttune.harden(model, loader(400, 50), preset="fast", epochs=7, **settings)
    assert "nfgsm, late in the run pgd with 2 steps" in caplog.text
    assert "sgd lr 0.2" in caplog.text
    assert ["held-out robust" in facts for facts in seen] == [False, False, True, False, False, True, True]
    assert "rotation" not in seen[0]
    caplog.clear()
    seen.clear()
    robusttune.harden(
        model, loader(100, 50), preset="fast", tasks={"rotation": 0.5}, steps=2, lr=0.01, epochs=1, **settings
    )
    assert "apgd with 2 steps" in caplog.text
    assert "sgd lr 0.01" in caplog.text
    assert "rotation" in seen[0]
    with pytest.raises(
        ValueError, match="preset is 'quick', but it must be one of 'standard', 'thorough', 'fast', 'joint'"
    ):
        robusttune.harden(model, loader(), preset="quick", progress=False)


class Watched(nn.Module):
    """A model that knows of each forward whether it was in train mode."""

    def __init__(self):
        super().__init__()
        self.fc, self.modes = nn.Linear(64, 10), []

    def forward(self, images):
        self.modes.append("T" if self.training else "e")
        return self.fc(images.flatten(1))


@pytest.mark.parametrize(
    ("given", "late"), [({}, "eeT"), ({"attack": "nfgsm"}, "eT"), ({"preset": "joint", "attack": "nfgsm"}, "eT")]
)
def test_the_last_quarter_of_a_fast_run_takes_two_steps_unless_the_attack_was_given(given, late):
    torch.manual_seed(0)
    model, batches = Watched(), list(loader(400, 50))
    settings = {"preset": "fast", "tasks": None, "eps_ramp": False, "epochs": 1, "progress": False}
    robusttune.harden(model, batches, **(settings | given))
    assert re.findall("e*T", "".join(model.modes))[-7:] == ["eT"] * 5 + [late] * 2


def test_large_images_keep_their_learning_rate():
    model = timm.create_model("test_resnet", num_classes=10)
    small, large = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 224, 224)
    for name in ("standard", "thorough", "fast"):
        preset = PRESETS[name]
        quick, slow = (default_recipe(model, images, Updates(), preset) for images in (small, large))
        assert quick.lr == preset.pace * default_recipe(model, small, Updates()).lr
        assert slow == default_recipe(model, large, Updates())


def test_large_images_are_attacked_as_published_and_small_ones_in_small_steps():
    large, settings = torch.rand(1, 3, 224, 224), run_settings([])
    for norm, attack in (("linf", ("apgd", 2)), ("l2", ("pgd", 7))):
        for name in ("standard", "thorough"):
            chosen = chosen_attacker(Adversary(norm, preset=name), PRESETS[name], large)
            assert (chosen.attack, chosen.steps, chosen.late) == (*attack, None)
    assert images_of_a_step(settings, large) is None
    assert images_of_a_step(settings, torch.rand(1, 3, 96, 96)) == PRESETS["standard"].update_batch
    assert chosen_attacker(Adversary("linf"), PRESETS["standard"], large[..., :32, :32]).attack == "nfgsm"


def test_the_users_optimizer_has_no_limit_of_the_gradient_that_nobody_asked_for():
    model, images, preset = (
        timm.create_model("test_resnet", num_classes=10),
        torch.rand(1, 3, 32, 32),
        PRESETS["standard"],
    )
    assert default_recipe(model, images, Updates(), preset).clip_grad == 1.0
    assert default_recipe(model, images, Updates(lr=0.1), preset).clip_grad == 1.0
    assert default_recipe(model, images, Updates(optimizer="sgd"), preset).clip_grad is None


@pytest.mark.parametrize(
    ("name", "optimizer", "expected"),
    [
        ("test_resnet", "adamw", ("adamw", 0.002, 0.05)),
        ("test_resnet", None, ("sgd", 0.2, 5e-4)),
        ("test_vit", "momentum", ("momentum", 0.2, 5e-4)),
        ("test_vit", None, ("adamw", 0.002, 0.05)),
    ],
)
def test_the_rate_is_that_of_the_named_optimizer(name, optimizer, expected):
    model, images = timm.create_model(name, num_classes=10), torch.rand(1, 3, 32, 32)
    recipe = default_recipe(model, images, Updates(optimizer=optimizer), PRESETS["standard"])
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay) == expected


def test_no_rate_is_guessed_for_another_optimizer():
    model, images = timm.create_model("test_resnet", num_classes=10), torch.rand(1, 3, 32, 32)
    with pytest.raises(ValueError, match=r"no learning rate is customary for optimizer='lamb'.*pass lr="):
        default_recipe(model, images, Updates(optimizer="lamb"))
    assert default_recipe(model, images, Updates(optimizer="lamb", lr=0.01)).lr == 0.01


@pytest.mark.slow
def test_the_fast_preset_makes_a_model_robust():
    torch.manual_seed(0)
    images, labels = digits()
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)
    )
    data = torch.utils.data.TensorDataset(images[300:], labels[300:])
    batches = torch.utils.data.DataLoader(data, 64, shuffle=True)
    robusttune.harden(model, batches, norm="linf", eps=0.1, preset="fast", epochs=8, progress=False)
    held = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images[:300], labels[:300]), 100)
    records = robusttune.evaluate(model, held, sweep, norm="linf", eps=0.1, progress=False)
    assert records.where(norm="linf", eps=0.1)[0].value > 0.5


def test_the_page_states_what_each_preset_chooses():
    page = (Path(__file__).parents[2] / "docs/training.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r'^\| `"(\w+)"` \| (.*) \|$', page, re.MULTILINE))
    assert rows.keys() == PRESETS.keys()
    for name, preset in PRESETS.items():
        attack, images, rates, _ = rows[name].split(" | ")
        assert rates == f"{0.05 * preset.pace:g} / {0.0005 * preset.pace:g}"
        assert images == ("the loader's batch" if preset.update_batch is None else f"{preset.update_batch} images")
        assert attack.startswith("N-FGSM") == (preset.attack == "nfgsm")
        late = (
            None if preset.late is None else ("`wide_pgd`" if preset.late[0] == "wide_pgd" else "PGD", preset.late[1])
        )
        shown = re.search(r"in the last quarter (\S+) with (\d+) steps", attack)
        assert late == (shown and (shown[1], int(shown[2])))
