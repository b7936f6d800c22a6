"""Runs and attacks that do nothing, or other than it seems, say so."""

import warnings
from functools import partial

import pytest
import torch
from guarded import GOOD, small_model, unchanged
from torch import nn

import robusttune
from robusttune.evaluations.sweep import sweep

SETTINGS = {"tasks": None, "steps": 1, "progress": False, "device": "cpu"}


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 5))


def singles(count=4):
    return [(GOOD[0][number : number + 1], GOOD[1][number : number + 1]) for number in range(count)]


def test_pretraining_on_single_images_that_batch_norm_cannot_normalise_is_refused():
    model = small_model()
    with (
        unchanged(model),
        pytest.raises(ValueError, match=r"took no step, so nothing was learnt: .*let the loader yield larger"),
    ):
        robusttune.pretrain(
            model, [images for images, _ in singles()], tasks={"rotation": 1.0}, epochs=1, progress=False
        )


def test_pretraining_on_single_images_works_without_batch_norm():
    model = linear()
    robusttune.pretrain(
        nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 5)),
        [images for images, _ in singles()],
        tasks={"rotation": 1.0},
        epochs=1,
        progress=False,
    )
    assert model is not None


def test_more_batches_to_accumulate_than_there_are_still_make_a_step():
    model = linear()
    before = model[1].weight.detach().clone()
    robusttune.harden(model, [GOOD] * 3, accumulate=100, epochs=1, eps=0.0, lr=0.1, ema=0.0, **SETTINGS)
    assert not torch.equal(model[1].weight, before)


def test_a_run_that_changes_no_weight_warns_and_names_its_rate():
    with pytest.warns(
        UserWarning, match=r"no weight of the model has changed in 3 steps: its learning rate was 0 at the end"
    ):
        robusttune.harden(linear(), [GOOD] * 3, lr=0.0, epochs=1, **SETTINGS)


def test_a_run_that_learns_does_not_warn():
    model = linear()
    before = model[1].weight.detach().clone()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        robusttune.harden(model, [GOOD] * 3, lr=0.1, epochs=1, eps=0.0, ema=0.0, **SETTINGS)
    assert not [str(each.message) for each in said]
    assert not torch.equal(model[1].weight, before)


def outside_the_ball(loss_of, images, threat, *, generator):
    return 1 - images


def outside_the_box(loss_of, images, threat, *, generator):
    return images + threat.eps


def in_place(loss_of, images, threat, *, generator):
    return images.copy_(1 - images)


def not_a_number(loss_of, images, threat, *, generator):
    return images * torch.nan


@pytest.mark.parametrize(
    ("attack", "match"),
    [
        (outside_the_ball, r"returned images up to 0\.9\d+ away in linf, but the radius is 0\.025"),
        (outside_the_box, r"with pixels in \[0\.\d+, 1\.\d+\], but pixels span \[0, 1\]"),
        (not_a_number, "returned images up to nan away in linf"),
        (in_place, r"returned images up to 0\.9\d+ away in linf, but the radius is 0\.025"),
    ],
)
def test_evaluate_refuses_an_attack_of_the_users_that_leaves_the_ball_or_the_box(attack, match):
    model = small_model()
    with unchanged(model), pytest.raises(ValueError, match=match):
        robusttune.evaluate(
            model, [GOOD], partial(sweep, attack=attack, steps=None), norm="linf", eps=0.1, progress=False
        )


@pytest.mark.parametrize("result", [None, torch.rand(3), [1], torch.zeros(8, 3, 8, 8, dtype=torch.int64)])
def test_an_attack_that_returns_no_images_is_refused_in_training_and_in_evaluation(result):
    def attack(loss_of, images, threat, *, generator):
        return result

    settings = SETTINGS | {"steps": None, "attack": attack}
    with pytest.raises(ValueError, match=r"returned .*: it must return changed images of that shape"):
        robusttune.harden(linear(), [GOOD], epochs=1, **settings)
    with pytest.raises(ValueError, match=r"returned .*: it must return changed images of that shape"):
        robusttune.evaluate(linear(), [GOOD], partial(sweep, attack=attack, steps=None), progress=False)


def test_a_run_in_fp32_is_the_same_inside_the_users_autocast():
    def weights():
        model = linear()
        robusttune.harden(model, [GOOD] * 3, lr=0.1, epochs=2, precision="fp32", **SETTINGS)
        return model[1].weight.detach().clone()

    outside = weights()
    with torch.autocast("cpu", torch.bfloat16):
        inside = weights()
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(inside, outside)
