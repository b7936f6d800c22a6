"""TRADES and label smoothing against formulas told in another way, at extremes, and inside RobustLoss."""

import math

import pytest
import torch
from third_parties import BETA, Trades, a_batch, a_loss, after_backward, difference
from torch import nn
from torch.nn import functional as F

from robusttune.attacks.pgd import pgd
from robusttune.objectives.adversarial import adversarial
from robusttune.objectives.trades import trades

COUNT, CLASSES = 6, 5


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def some_logits(seed, scale=2.0, classes=CLASSES):
    return (scale * torch.randn(COUNT, classes, generator=generator(seed), dtype=torch.float64)).requires_grad_()


def some_labels():
    return torch.tensor([0, 1, 2, 3, 4, 0])


def some_soft_labels():
    return torch.randn(COUNT, CLASSES, generator=generator(9), dtype=torch.float64).softmax(1)


def smoothed(label, share):
    """Equation 7 of arXiv:1512.00567, with the uniform distribution over the classes."""
    return [(1 - share) * (k == label) + share / CLASSES for k in range(CLASSES)]


def entropy_of(logits, target):
    total = sum(torch.exp(value) for value in logits)
    return -sum(weight * torch.log(torch.exp(value) / total) for weight, value in zip(target, logits, strict=True))


def divergence_of(clean, logits):
    p, q = torch.exp(clean) / torch.exp(clean).sum(), torch.exp(logits) / torch.exp(logits).sum()
    return sum(p[k] * torch.log(p[k] / q[k]) for k in range(len(p)))


def slopes(loss, *tensors):
    return torch.autograd.grad(loss.sum(), tensors, allow_unused=True)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("beta", [0.0, 1.0, 6.0])
def test_loss_and_gradients_are_those_of_equation_5(beta, share):
    own, clean, labels = some_logits(1), some_logits(2), some_labels()
    found = trades(beta, label_smoothing=share).loss(own, labels, clean)
    expected = torch.stack(
        [
            entropy_of(clean[n], smoothed(int(labels[n]), share)) + beta * divergence_of(clean[n], own[n])
            for n in range(COUNT)
        ]
    )
    assert found.shape == (COUNT,)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    for one, other in zip(slopes(found, own, clean), slopes(expected, own, clean), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-12)


def test_the_attack_maximises_the_divergence_whatever_the_labels():
    own, clean = some_logits(1), some_logits(2)
    found = trades().attack_loss(own, some_labels(), clean)
    expected = torch.stack([divergence_of(clean[n], own[n]) for n in range(COUNT)])
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    assert torch.equal(found, trades().attack_loss(own, some_labels().flip(0), clean))
    assert (found > 0).all()


def test_the_divergence_has_no_slope_at_the_clean_image_and_pgd_starts_elsewhere():
    clean = some_logits(2)
    own = clean.detach().clone().requires_grad_()
    (slope,) = slopes(trades().attack_loss(own, some_labels(), clean.detach()), own)
    assert slope.abs().max() < 1e-12
    found = []

    def remembered(loss_of, images, threat, *, generator):
        found.append((images, pgd(loss_of, images, threat, generator=generator)))
        return found[-1][1]

    a_loss(objective="trades", attack=remembered)(*a_batch())
    assert ((found[0][1] - found[0][0]).flatten(1).norm(dim=1) > 0.3).all()


@pytest.mark.parametrize("name", ["trades", "adversarial"])
@pytest.mark.parametrize("share", [0.0, 0.2])
def test_one_hot_labels_are_hard_labels_and_soft_labels_are_their_mean(name, share):
    objective = {"trades": trades, "adversarial": adversarial}[name](label_smoothing=share)
    own, clean, labels, soft = some_logits(1), some_logits(2), some_labels(), some_soft_labels()

    def loss(labels):
        return objective.loss(own, labels, clean)

    assert torch.allclose(loss(F.one_hot(labels, CLASSES).double()), loss(labels), rtol=0, atol=1e-12)
    mean = sum(soft[:, k] * loss(torch.full((COUNT,), k)) for k in range(CLASSES))
    assert torch.allclose(loss(soft), mean, rtol=0, atol=1e-12)
    assert objective.attack_loss(own, soft, clean).shape == (COUNT,)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_label_smoothing_of_adversarial_training_is_for_the_update_alone(share):
    own, labels = some_logits(1), some_labels()
    found = adversarial(label_smoothing=share).loss(own, labels, None)
    expected = torch.stack([entropy_of(own[n], smoothed(int(labels[n]), share)) for n in range(COUNT)])
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    plain = adversarial().attack_loss(own, labels, None)
    assert torch.equal(adversarial(label_smoothing=share).attack_loss(own, labels, None), plain)
    assert torch.equal(adversarial().loss(own, labels, None), plain)


EXTREMES = [[100.0, -100.0, 0.0], [-100.0, 100.0, 0.0], [100.0, 100.0, -100.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("objective", [trades(), adversarial(label_smoothing=0.1)], ids=["trades", "adversarial"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_give_finite_losses_and_slopes(objective, dtype):
    own = torch.tensor(EXTREMES).repeat(4, 1).to(dtype).requires_grad_()
    clean = torch.tensor(EXTREMES).repeat_interleave(4, 0).to(dtype).requires_grad_()
    for labels in torch.arange(3)[:, None].expand(3, 16):
        for loss in (objective.loss(own, labels, clean), objective.attack_loss(own, labels, clean)):
            assert loss.isfinite().all()
            assert all(slope is None or slope.isfinite().all() for slope in slopes(loss, own, clean))
    assert trades().attack_loss(own, labels, clean)[1].item() == pytest.approx(200, rel=1e-3)


def test_near_answers_differ_in_half_precision_too():
    clean = torch.tensor([[1.0, 2.0, 4.0]])
    own = clean + torch.tensor([[0.0625, 0.0, 0.0]])
    exact = trades().attack_loss(own, torch.tensor([0]), clean)
    assert torch.allclose(trades().attack_loss(own.bfloat16(), torch.tensor([0]), clean.bfloat16()), exact, rtol=1e-3)


def test_inside_robust_loss_it_is_what_a_third_party_would_write():
    ours, theirs = (
        after_backward(a_loss("rotation", objective=objective), a_batch()) for objective in (trades(BETA), Trades())
    )
    assert ours[0]["loss"].item() == pytest.approx(theirs[0]["loss"].item(), abs=1e-12)
    assert difference(ours[1], theirs[1]) < 1e-12
    assert difference(ours[1], after_backward(a_loss("rotation", objective="trades"), a_batch())[1]) > 1e-3


@pytest.mark.parametrize("kind", [trades, adversarial])
@pytest.mark.parametrize("share", [-0.1, 1.0, math.nan, "0.1", None])
def test_label_smoothing_is_a_share_below_one(kind, share):
    with pytest.raises(ValueError, match=r"label_smoothing is .*, but a number from 0 to below 1 is needed"):
        kind(label_smoothing=share)


@pytest.mark.parametrize("beta", [-1, math.inf, math.nan, 10**400, "6", None])
def test_beta_is_a_number_of_at_least_zero(beta):
    with pytest.raises(
        ValueError, match=r"beta is .*, but a finite number of at least 0 is needed; the usual value is 6"
    ):
        trades(beta)


def test_a_criterion_smooths_labels_itself():
    with pytest.raises(ValueError, match=r"label_smoothing=0.1 .* let the criterion smooth labels itself"):
        adversarial(nn.CrossEntropyLoss(reduction="none"), label_smoothing=0.1)
