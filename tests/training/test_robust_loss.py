"""The seam carries more than is built: RobustLoss against a naive script, with what third parties bring to it."""

import copy
import math
from functools import partial

import pytest
import torch
from naive import a_view, naive_gradients
from third_parties import (
    WEIGHTS,
    ContentTurn,
    Tiny,
    Trades,
    a_batch,
    a_loss,
    after_backward,
    difference,
    gradients,
    no_attack,
    one_step,
)
from torch.nn import functional as F

from robusttune.attacks.torchattacks import torchattacks
from robusttune.threat import LossOf
from robusttune.training.robust_loss import RobustLoss

SHAPES = {"oblong": (5, 3, 8, 9), "square": (4, 3, 7, 7)}
ALL = ("rotation", "jigsaw", "patch")
every_way = pytest.mark.parametrize("attack_tasks", ["none", "separate", "joint"])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("names", "views"),
    [
        (["rotation"], 1),
        (["jigsaw"], 1),
        (["patch"], 1),
        (["patch", "rotation", "jigsaw"], 1),
        (["rotation", "patch", "jigsaw"], "all"),
    ],
)
@every_way
@pytest.mark.parametrize("objective", ["adversarial", Trades()], ids=["adversarial", "trades"])
def test_gradients_are_those_of_a_naive_script(objective, attack_tasks, names, views, shape):
    batch = a_batch(SHAPES[shape])
    robust_loss = a_loss(*names, objective=objective, attack_tasks=attack_tasks, views=views)
    loss, expected = naive_gradients(robust_loss, *batch, trades=isinstance(objective, Trades))
    out, found = after_backward(robust_loss, batch)
    assert out["loss"].item() == pytest.approx(loss, abs=1e-12)
    assert difference(found, expected) < 1e-10


def test_logged_terms_are_unweighted_and_make_up_the_loss():
    out = a_loss(*ALL, views="all")(*a_batch())
    total = out["robust"] + sum(WEIGHTS[name] * out[name] for name in WEIGHTS)
    assert total.item() == pytest.approx(out["loss"].item(), abs=1e-12)


def fgsm(loss_of, images, threat, *, generator):
    candidates = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(candidates).sum(), candidates)
    return (images + threat.eps * gradient.sign()).clamp(0, 1)


def through_labels(loss_of, images, threat, *, generator):
    """The same, from the labels and logits that attacks written elsewhere want."""
    own = LossOf(lambda candidates: F.cross_entropy(loss_of.logits_of(candidates), loss_of.labels, reduction="none"))
    return fgsm(own, images, threat, generator=generator)


@pytest.mark.parametrize("attack_tasks", ["none", "separate"])
def test_attacks_on_labels_and_logits_serve_classes_and_views(attack_tasks):
    pytest.importorskip("torchattacks")

    def found_with(attack):
        robust_loss = a_loss("rotation", "jigsaw", attack=attack, attack_tasks=attack_tasks, norm="linf", eps=0.1)
        return after_backward(robust_loss, a_batch())[1]

    expected = found_with(fgsm)
    assert difference(found_with(through_labels), expected) < 1e-10
    assert difference(found_with(partial(torchattacks, name="FGSM")), expected) < 1e-10
    assert difference(found_with(no_attack), expected) > 1e-3


def test_a_torchattacks_object_on_the_model_itself_is_an_attack():
    library = pytest.importorskip("torchattacks")
    model, settings = Tiny().double(), {"attack_tasks": "none", "norm": "linf", "eps": 0.1}
    theirs = library.FGSM(model, eps=0.1)
    attack = lambda loss_of, images, threat, *, generator: theirs(images, loss_of.labels)  # noqa: E731
    found = after_backward(a_loss(*ALL, model=model, attack=attack, **settings), a_batch())[1]
    expected = after_backward(a_loss(*ALL, attack=fgsm, **settings), a_batch())[1]
    assert difference(found, expected) < 1e-10
    assert all(module.training for module in model.modules())


def test_torchattacks_refuses_a_joint_attack_and_serves_one_without_tasks():
    pytest.importorskip("torchattacks")
    with pytest.raises(ValueError, match=r"attack_tasks='joint'.*use attack_tasks='none' or 'separate'"):
        a_loss("rotation", attack="torchattacks", attack_tasks="joint")(*a_batch())
    with pytest.raises(ValueError, match=r"attack_tasks='joint'.*use attack_tasks='none' or 'separate'"):
        a_loss("patch", attack="torchattacks", attack_tasks="joint")(*a_batch())
    assert a_loss(attack="torchattacks", steps=2, attack_tasks="joint")(*a_batch())["loss"].isfinite()


def against(model):
    """An attack on another model: all that it takes from RobustLoss are the labels."""

    def attack(loss_of, images, threat, *, generator):
        theirs = LossOf(lambda candidates: F.cross_entropy(model(candidates), loss_of.labels, reduction="none"))
        return one_step(theirs, images, threat, generator=generator)

    return attack


def test_an_attack_may_aim_at_a_second_copy_of_the_model():
    twin = Tiny().double().eval()
    robust_loss, same = (a_loss("rotation", attack_tasks="none", attack=against(twin)) for _ in range(2))
    expected = after_backward(a_loss("rotation", attack_tasks="none"), a_batch())[1]
    assert difference(after_backward(same, a_batch())[1], expected) < 1e-10
    twin.classifier.weight.data.neg_()
    assert difference(after_backward(robust_loss, a_batch())[1], expected) > 1e-3
    assert set(gradients(twin).values()) == {None}


class Twin(RobustLoss):
    """A second copy, heads included, finds images and views: what was drawn does not depend on the model."""

    def _attacked(self, *arguments):
        return self.twin[0]._attacked(*arguments)


@every_way
def test_a_second_copy_of_model_and_heads_may_be_attacked_in_their_place(attack_tasks):
    settings = {"attack_tasks": attack_tasks, "objective": Trades()}
    expected = after_backward(a_loss(*ALL, **settings), a_batch())[1]
    robust_loss, same = (a_loss(*ALL, kind=Twin, **settings) for _ in range(2))
    robust_loss.twin = same.twin = [a_loss(*ALL, **settings)]  # in a list, which keeps it out of the parameters
    assert difference(after_backward(same, a_batch())[1], expected) < 1e-10
    for parameter in same.twin[0].parameters():
        parameter.data.mul_(-3)
    assert difference(after_backward(robust_loss, a_batch())[1], expected) > 1e-3
    assert set(gradients(same.twin[0]).values()) == {None}


@every_way
def test_running_statistics_are_those_of_the_adversarial_images_alone(attack_tasks):
    found = []

    def remembering(*arguments, generator):
        found.append(one_step(*arguments, generator=generator))
        return found[-1]

    robust_loss = a_loss(*ALL, attack=remembering, attack_tasks=attack_tasks, objective=Trades(), views="all")
    robust_loss(*a_batch())
    fresh = Tiny().double()
    fresh(found[0])
    expected = dict(fresh.named_buffers())
    for name, buffer in robust_loss.model.named_buffers():
        assert torch.allclose(buffer, expected[name], rtol=0, atol=1e-12), name


@pytest.mark.slow
@pytest.mark.parametrize("views", [1, 2])
def test_the_expected_pretext_loss_is_the_weighted_sum_over_all_tasks_and_views(views):
    images, labels = a_batch((3, 3, 7, 7))
    whole = ContentTurn("whole")
    robust_loss = a_loss(tasks={"rotation": 0.5, "jigsaw": 0.3, whole: 0.8}, views=views, attack=no_attack)
    robust_loss.model.eval()

    def mean_loss(name, views, targets):
        answers = robust_loss.heads[name](robust_loss.model.body(views))
        return F.cross_entropy(answers[:, :24], targets).item()

    def over_all(name, targets):
        views = torch.stack([a_view(name, image, target) for target in range(targets) for image in images])
        return mean_loss(name, views, torch.arange(targets).repeat_interleave(len(images)))

    with torch.no_grad():
        turn = whole.draw(images, None, patch_size=None)
        expected = 0.5 * over_all("rotation", 4) + 0.3 * over_all("jigsaw", 24)
        expected += 0.8 * mean_loss("whole", turn.of(images), turn.targets)
        outs = [robust_loss(images, labels) for _ in range(800)]
    found = torch.stack([out["loss"] - out["robust"] for out in outs])
    error = found.std().item() / math.sqrt(len(found))
    assert error < 0.01 * expected
    assert abs(found.mean().item() - expected) < 4 * error


@every_way
def test_autocast_around_whole_steps_leaves_no_weight_without_gradient(attack_tasks):
    robust_loss = a_loss("rotation", "patch", model=Tiny(), attack_tasks=attack_tasks, objective=Trades())
    images, labels = a_batch()
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(2):
            robust_loss.zero_grad()
            found = after_backward(robust_loss, (images.float(), labels))[1]
            assert all(gradient.abs().max() > 0 for gradient in found.values())


@every_way
@pytest.mark.parametrize("without_gradients", [torch.no_grad, torch.inference_mode])
def test_in_eval_mode_it_attacks_without_gradients_as_with_them(without_gradients, attack_tasks):
    robust_loss = a_loss(*ALL, attack_tasks=attack_tasks, objective=Trades()).eval()
    before = copy.deepcopy(robust_loss.state_dict())
    expected = robust_loss(*a_batch())
    with without_gradients():
        found = robust_loss(*(tensor.clone() for tensor in a_batch()))
    assert expected["loss"].requires_grad
    assert not found["loss"].requires_grad
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in robust_loss.state_dict().items())
    assert all(parameter.requires_grad for parameter in robust_loss.parameters())


def test_another_model_in_the_place_of_the_first_is_refused():
    """The loss would be that of the first model, and the second would learn nothing."""
    robust_loss = a_loss()
    robust_loss.model = copy.deepcopy(robust_loss.model)
    with pytest.raises(ValueError, match="model in RobustLoss was replaced"):
        robust_loss(*a_batch())


@pytest.mark.parametrize("loaded", ["pixels", "normalised", "bytes"])
def test_without_images_the_first_batch_shows_whether_images_are_normalised(loaded):
    """The model would otherwise get pixels where it takes normalised images, and eps would be in other units."""
    images, labels = a_batch()
    images = (images * 255).round() / 255
    batch = {"pixels": images, "normalised": (images - 0.3) / 0.4, "bytes": (images * 255).byte()}[loaded]
    seen = []

    def teacher(inputs):
        seen.append(inputs)
        return inputs.new_zeros(len(inputs), 7)

    known = {"mean": [0.3] * 3, "std": [0.4] * 3, "teacher": teacher}
    found = [
        a_loss(**known, images=shown)(batch, labels, unlabeled=batch[:2])["loss"].item() for shown in (batch, None)
    ]
    assert found[1] == pytest.approx(found[0], abs=1e-9)
    assert torch.equal(*seen)
