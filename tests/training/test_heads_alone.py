"""Tasks of weight 0 in a training loop of one's own: their heads learn, and gradients of the backbone are those without them."""

import copy

import pytest
import torch
from short_runs import a_loader, hardened
from third_parties import a_batch, a_loss, after_backward, no_attack
from torch import nn

BOTH = {"rotation": 0.0, "jigsaw": 0.0}


@pytest.mark.parametrize("attack_tasks", ["none", "separate", "joint"])
def test_gradients_and_the_loss_are_those_without_the_tasks_beside_a_task_that_counts(attack_tasks):
    out, expected = after_backward(a_loss("rotation", attack_tasks=attack_tasks), a_batch())
    weights = {"rotation": 0.5, "jigsaw": 0.0, "patch_rotation": 0.0}
    beside = a_loss(tasks=weights, attack_tasks=attack_tasks)
    more, found = after_backward(beside, a_batch())
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())
    assert torch.equal(more["loss"], out["loss"])
    for name in ("jigsaw", "patch_rotation"):
        assert found[f"heads.layers.{name}.weight"].norm() > 0
        assert more[name] > 0


def test_a_head_gets_the_gradient_of_its_mean_loss_in_eval_mode():
    robust_loss = a_loss(tasks={"rotation": 0.0}, attack=no_attack)
    images, labels = a_batch((12, 3, 7, 7))
    heads, model, drawn = robust_loss.heads, copy.deepcopy(robust_loss.model).eval(), []
    draw = heads.draw_alone
    heads.draw_alone = lambda *batch: drawn.extend(draw(*batch)) or drawn
    out, found = after_backward(robust_loss, (images, labels))
    ((_, rows, view, _),) = drawn
    assert len(rows) == 3
    loss = nn.functional.cross_entropy(heads["rotation"](model.body(view.of(images[rows]))), view.targets)
    (expected,) = torch.autograd.grad(loss, heads["rotation"].weight)
    assert torch.allclose(out["rotation"], loss)
    assert torch.allclose(found["heads.layers.rotation.weight"], expected)


def test_images_without_labels_need_a_task_that_counts():
    with pytest.raises(ValueError, match="but the weights of all tasks are 0: pass teacher='self', which labels"):
        hardened(tasks=BOTH, unlabeled_loader=a_loader(80), teacher=None)
    images, labels = a_batch()
    with pytest.raises(ValueError, match="for the pretext losses, but the weights of all tasks are 0: pass tasks="):
        a_loss(tasks=BOTH, teacher=None)(images, labels, unlabeled=images)
    with pytest.raises(ValueError, match="for the pretext losses, but there are no tasks: pass tasks="):
        a_loss(tasks=None, objective=None)(images)
