"""MART against its formula told in another way, against the authors' guarded form, and at extremes."""

import math

import pytest
import torch
from third_parties import a_batch, a_loss
from torch.nn import functional as F

from robusttune.objectives.mart import mart

COUNT = 7


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def some_logits(seed, scale=2.0, classes=5):
    return (scale * torch.randn(COUNT, classes, generator=generator(seed), dtype=torch.float64)).requires_grad_()


def some_labels(classes=5):
    return torch.arange(COUNT) % classes


def slopes(loss, *tensors):
    return torch.autograd.grad(loss.sum(), tensors)


def naive(own, clean, label, beta):
    """The paper's loss of one image, in probabilities."""
    p, q = torch.exp(own) / torch.exp(own).sum(), torch.exp(clean) / torch.exp(clean).sum()
    wrong = max((p[k] for k in range(len(p)) if k != label), key=lambda value: value.item())
    boosted = -torch.log(p[label]) - torch.log(1 - wrong)
    divergence = sum(q[k] * torch.log(q[k] / p[k]) for k in range(len(p)))
    return boosted + beta * divergence * (1 - q[label])


@pytest.mark.parametrize("beta", [0.0, 5.0, 6.0])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_loss_and_gradients_are_those_of_the_formula(beta, classes):
    own, clean, labels = some_logits(1, classes=classes), some_logits(2, classes=classes), some_labels(classes)
    right = own.argmax(1) == labels
    assert right.any()
    assert not right.all()
    found = mart(beta).loss(own, labels, clean)
    expected = torch.stack([naive(own[n], clean[n], int(labels[n]), beta) for n in range(COUNT)])
    assert found.shape == (COUNT,)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    for one, other in zip(slopes(found, own, clean), slopes(expected, own, clean), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-12)


def test_the_authors_guards_are_all_that_differs():
    own, clean, labels = some_logits(1, scale=1.0), some_logits(2, scale=1.0), some_labels()
    p, q = own.softmax(1), clean.softmax(1)
    best = p.argsort(1)[:, -2:]
    wrong = torch.where(best[:, 1] == labels, best[:, 0], best[:, 1])
    guarded = F.cross_entropy(own, labels, reduction="none")
    guarded = guarded + F.nll_loss((1.0001 - p + 1e-12).log(), wrong, reduction="none")
    doubt = 1.0000001 - q.gather(1, labels[:, None])[:, 0]
    guarded = guarded + 6 * doubt * F.kl_div((p + 1e-12).log(), q, reduction="none").sum(1)
    gap = mart().loss(own, labels, clean) - guarded
    assert (gap.abs() < 1e-3).all()
    assert (gap > 0).all()


def test_the_attack_maximises_the_plain_cross_entropy():
    own, labels = some_logits(1), some_labels()
    expected = own.logsumexp(1) - own.gather(1, labels[:, None])[:, 0]
    assert torch.allclose(mart().attack_loss(own, labels, some_logits(2)), expected, rtol=0, atol=1e-12)


def test_one_hot_labels_are_hard_labels_and_soft_labels_are_their_mean():
    own, clean, labels = some_logits(1), some_logits(2), some_labels()
    soft = torch.randn(COUNT, 5, generator=generator(9), dtype=torch.float64).softmax(1)

    def loss(labels):
        return mart().loss(own, labels, clean)

    assert torch.allclose(loss(F.one_hot(labels, 5).double()), loss(labels), rtol=0, atol=1e-12)
    mean = sum(soft[:, k] * loss(torch.full((COUNT,), k)) for k in range(5))
    assert torch.allclose(loss(soft), mean, rtol=0, atol=1e-12)
    assert mart().attack_loss(own, soft, clean).shape == (COUNT,)


EXTREMES = [[100.0, -100.0, 0.0], [-100.0, 100.0, 0.0], [100.0, 100.0, -100.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("soft", [False, True])
def test_extreme_logits_give_finite_losses_and_slopes(dtype, soft):
    own = torch.tensor(EXTREMES).repeat(4, 1).to(dtype).requires_grad_()
    clean = torch.tensor(EXTREMES).repeat_interleave(4, 0).to(dtype).requires_grad_()
    for labels in torch.arange(3)[:, None].expand(3, 16):
        loss = mart().loss(own, F.one_hot(labels, 3).float() if soft else labels, clean)
        assert loss.isfinite().all()
        assert all(slope.isfinite().all() for slope in slopes(loss, own, clean))


@pytest.mark.parametrize("label", [0, 1])
def test_being_sure_of_a_wrong_class_has_a_price_and_a_slope(label):
    own = torch.tensor([[60.0, -60.0]]).roll(label + 1, 1).requires_grad_()
    loss = mart(0.0).loss(own, torch.tensor([label]), own.detach())
    assert loss.item() == pytest.approx(240)
    (slope,) = slopes(loss, own)
    assert slope[0, label].item() == pytest.approx(-2)
    assert slope[0, 1 - label].item() == pytest.approx(2)


@pytest.mark.parametrize("attack_tasks", ["none", "joint"])
def test_it_trains(attack_tasks):
    robust_loss = a_loss("rotation", objective="mart", attack_tasks=attack_tasks)
    out = robust_loss(*a_batch())
    out["loss"].backward()
    assert out["robust"] > a_loss("rotation", attack_tasks=attack_tasks)(*a_batch())["robust"]
    assert all(parameter.grad.isfinite().all() for parameter in robust_loss.parameters())


@pytest.mark.parametrize("beta", [-1, math.inf, math.nan, 10**400, "6", None])
def test_beta_is_a_number_of_at_least_zero(beta):
    with pytest.raises(
        ValueError, match=r"beta is .*, but a finite number of at least 0 is needed; the usual value is 6"
    ):
        mart(beta)
