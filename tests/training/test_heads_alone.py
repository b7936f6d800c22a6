"""Tasks of weight 0: their heads learn, and the backbone becomes what it would be without them, bit for bit."""

import copy

import pytest
import timm
import torch
from short_runs import a_loader, a_model, hardened, same, weights_of
from third_parties import a_batch, a_loss, after_backward, no_attack
from torch import nn

import robusttune
from robusttune.run.files import load_weights
from robusttune.training.replay import replay

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained

BOTH = {"rotation": 0.0, "jigsaw": 0.0}


def a_vit():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = {"img_size": 8, "patch_size": 4, "in_chans": 1, "num_classes": 10}
        return timm.create_model("test_vit", drop_rate=0.1, drop_path_rate=0.1, **settings)


RUNS = {
    "fast, with selection": (a_model, {"preset": "fast", "steps": None, "epochs": 2, "val_loader": a_loader(80)}),
    "clipped, weights attacked": (
        a_model,
        {"clip_grad": 0.05, "awp": 0.005, "precision": "bf16", "objective": "trades", "lr": 0.2},
    ),
    "transformer with dropout": (a_vit, {"attack_tasks": "separate", "accumulate": 2, "max_steps": 3}),
}


@pytest.mark.parametrize(("new", "settings"), RUNS.values(), ids=RUNS)
def test_the_model_becomes_what_it_would_be_without_the_tasks(new, settings):
    loader = list(a_loader(240))
    plain = weights_of(hardened(new(), loader, tasks=None, **settings))
    assert same(weights_of(hardened(new(), loader, tasks=BOTH, **settings)), plain)
    assert not same(weights_of(hardened(new(), loader, tasks=dict.fromkeys(BOTH, 0.1), **settings)), plain)


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


def test_a_folder_has_the_heads_and_a_run_that_is_killed_resumes_to_the_same(tmp_path):
    settings = {"tasks": BOTH, "epochs": 2, "lr": 0.05, "checkpoint_every": 4}

    def stop(facts):
        assert {"rotation", "jigsaw", "robust"} < facts.keys()
        raise KeyboardInterrupt

    loader = list(a_loader(240))
    hardened(loader=loader, out=tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        hardened(loader=loader, out=tmp_path / "killed", on_epoch=stop, **settings)
    hardened(loader=loader, out=tmp_path / "killed", resume=True, **settings)
    whole, killed = (load_weights(tmp_path / name / "heads.safetensors") for name in ("whole", "killed"))
    assert same(whole, killed)
    assert set(robusttune.load_heads(tmp_path / "whole", a_model()).tasks) == set(BOTH)
    assert replay(tmp_path / "whole", a_model(), loader).same


def test_images_without_labels_need_a_task_that_counts():
    with pytest.raises(ValueError, match="but the weights of all tasks are 0: pass teacher='self', which labels"):
        hardened(tasks=BOTH, unlabeled_loader=a_loader(80), teacher=None)
    images, labels = a_batch()
    with pytest.raises(ValueError, match="for the pretext losses, but the weights of all tasks are 0: pass tasks="):
        a_loss(tasks=BOTH, teacher=None)(images, labels, unlabeled=images)
    with pytest.raises(ValueError, match="for the pretext losses, but there are no tasks: pass tasks="):
        a_loss(tasks=None, objective=None)(images)
