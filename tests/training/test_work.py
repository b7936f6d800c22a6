"""How much work a step is, counted exactly: passes through convolutions, and values that the host waits for."""

import pytest
import torch
from counted_work import Work
from torch import nn

from robusttune import RobustLoss, ThreatModel, plugins

COUNT, STEPS = 8, 3
# What looks at values in the host's memory, where the images come from: `pytest -m gpu` shows that a step on an
# accelerator never waits.
ON_THE_HOST = {"batches.py", "pixels.py", "_augment.py", "_heads.py"}


def net():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


def step(*, steps=STEPS, norm="linf", **settings):
    """The work of one step of training, and its RobustLoss."""
    images, labels = torch.rand(COUNT, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(COUNT)
    settings = {"tasks": None, **settings}
    robust_loss = RobustLoss(net(), ThreatModel(norm, 0.1), steps=steps, images=images, **settings)
    robust_loss(images, labels)["loss"].backward()  # the first call may look at things once
    robust_loss.zero_grad(set_to_none=True)
    with Work() as work:
        robust_loss(images, labels)["loss"].backward()
    return work, robust_loss


def test_a_plain_step_is_one_pass_more_than_the_attack_has_steps():
    for steps in (1, 3, 10):
        done = step(steps=steps)[0].done
        assert done["forward"] == (steps + 1) * COUNT
        assert done["forward calls"] == steps + 1
        assert done["backward"] == (steps + 1) * COUNT
        assert done["toward images"] == (steps + 1) * COUNT
        assert done["toward weights"] == COUNT, "weights get a gradient once"


@pytest.mark.parametrize(
    ("attack", "steps", "forward", "backward"), [("nfgsm", None, 2, 2), ("apgd", 2, 4, 3), ("apgd", 5, 7, 6)]
)
def test_other_attacks_take_the_passes_that_their_algorithm_names(attack, steps, forward, backward):
    done = step(attack=attack, steps=steps)[0].done
    # APGD looks once more at where its last step led; that one needs no gradient.
    assert (done["forward"], done["backward"]) == (forward * COUNT, backward * COUNT)
    assert done["toward weights"] == COUNT


def test_joint_with_one_view_doubles_the_plain_step_and_no_more():
    plain = step()[0].done
    tasks = {"rotation": 0.5, "jigsaw": 0.5}
    joint = step(tasks=tasks, attack_tasks="joint")[0].done
    for part in ("forward", "backward", "toward images", "toward weights"):
        assert joint[part] == 2 * plain[part], part
    # Classes and views go through the attack in one batch.
    assert joint["forward calls"] == STEPS + 2
    none = step(tasks=tasks, attack_tasks="none")[0].done
    assert none["forward"] == plain["forward"] + COUNT
    shared = step(tasks={"patch_rotation": 1.0}, attack_tasks="joint")[0].done
    assert shared["forward"] == plain["forward"], "a task that shares the forward costs none"


@pytest.mark.parametrize("attack_tasks", ["none", "separate", "joint"])
def test_heads_alone_take_one_forward_of_a_quarter_of_the_images(attack_tasks):
    plain = step()[0].done
    alone = step(tasks={"rotation": 0.0, "jigsaw": 0.0, "patch_rotation": 0.0}, attack_tasks=attack_tasks)[0].done
    assert alone - plain == {"forward": COUNT // 4, "forward calls": 1}


def test_trades_takes_two_passes_more():
    plain, trades = step()[0].done, step(objective="trades")[0].done
    assert trades["forward"] == plain["forward"] + 2 * COUNT  # the clean images, for the attack and for the update
    assert trades["toward weights"] == 2 * COUNT


@pytest.mark.sample(6)
@pytest.mark.parametrize("norm", plugins.names("norms"))
@pytest.mark.parametrize("attack", ["pgd", "apgd", "nfgsm"])
@pytest.mark.parametrize("attack_tasks", ["none", "separate", "joint"])
def test_nothing_in_a_step_waits_for_the_device(norm, attack, attack_tasks):
    settings = {"norm": norm, "attack": attack, "attack_tasks": attack_tasks, "augment": "standard"}
    tasks = {"rotation": 0.5, "jigsaw": 0.5}
    reads = [
        step(tasks=tasks, steps=steps, **settings)[0].read_by
        for steps in ([2, 6] if attack != "nfgsm" else [None, None])
    ]
    assert set(reads[0]) <= ON_THE_HOST
    assert reads[0] == reads[1], "what is read does not grow with the attack's steps"


@pytest.mark.parametrize("attack", ["pgd", "apgd", "nfgsm"])
def test_attacks_leave_no_gradient(attack):
    images, labels = torch.rand(COUNT, 3, 16, 16), torch.arange(COUNT)
    steps = None if attack == "nfgsm" else 2
    robust_loss = RobustLoss(net(), ThreatModel("l2", 0.5), attack=attack, steps=steps, images=images)
    out = robust_loss(images, labels)
    assert all(parameter.grad is None for parameter in robust_loss.parameters())
    assert images.grad is None
    out["loss"].backward()
    assert all(parameter.grad is not None for parameter in robust_loss.parameters())


def test_a_pixel_at_the_edge_of_the_box_still_gets_a_gradient():
    """A clamp inside the model's path would cut it off there; ours is outside."""
    images, labels = torch.zeros(COUNT, 3, 16, 16), torch.arange(COUNT)
    images[:, :, ::2] = 1.0
    moved = []

    def looks(loss_of, given, threat, *, generator):
        given = given.clone().requires_grad_()
        moved.append(torch.autograd.grad(loss_of(given).sum(), given)[0])
        return given.detach()

    RobustLoss(net(), ThreatModel("linf", 0.1), tasks=None, attack=looks, images=images)(images, labels)
    assert (moved[0] != 0).float().mean() > 0.9
