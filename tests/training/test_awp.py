"""Weights under attack: the perturbation of the paper, whatever the objective, and weights that stay where they were."""

import copy

import pytest
import torch
from third_parties import Tiny, Trades, a_batch, a_loss, after_backward, difference, no_attack
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from robusttune.threat import ThreatModel
from robusttune.training.awp import perturbed_weights
from robusttune.training.robust_loss import RobustLoss

GAMMA = 0.02


def transcription(model, images, labels, loss_of):
    """AWP as its authors' code has it: move a copy, take the gradient there, bring it home."""
    proxy = copy.deepcopy(model)
    loss_of(proxy, images, labels).backward()
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for weight, other in zip(moved.parameters(), proxy.parameters(), strict=True):
            if weight.dim() > 1:
                step = other.grad * (weight.norm() / other.grad.norm())
                weight += GAMMA * step
    loss_of(moved, images, labels).backward()
    return {name: parameter.grad for name, parameter in moved.named_parameters()}


def plain(model, images, labels):
    return F.cross_entropy(model(images), labels)


def trades(model, images, labels):
    clean = F.log_softmax(model(images), 1)
    adversarial = F.log_softmax(model(images), 1)
    return F.nll_loss(clean, labels) + 6 * F.kl_div(adversarial, clean, log_target=True, reduction="batchmean")


@pytest.mark.parametrize(
    ("objective", "loss_of"), [("adversarial", plain), (Trades(), trades)], ids=["plain", "trades"]
)
def test_gradients_are_those_at_the_perturbed_weights(objective, loss_of):
    images, labels = a_batch()
    robust_loss = a_loss(objective=objective, attack=no_attack)
    robust_loss.awp = GAMMA
    robust_loss.model.train()
    expected = transcription(robust_loss.model, images, labels, loss_of)
    before = copy.deepcopy(dict(robust_loss.model.named_parameters()))
    found = after_backward(robust_loss, (images, labels))[1]
    assert difference({f"model.{name}": gradient for name, gradient in expected.items()}, found) < 1e-6
    assert all(torch.equal(before[name], weight) for name, weight in robust_loss.model.named_parameters())
    robust_loss.awp = 0.0
    robust_loss.zero_grad()
    assert difference(after_backward(robust_loss, (images, labels))[1], found) > 1e-4


def test_each_weight_moves_by_gamma_times_its_norm_and_the_loss_rises():
    model, (images, labels) = Tiny().double(), a_batch()
    moved = perturbed_weights(model, lambda: plain(model, images, labels), GAMMA)
    assert moved.keys() == {name for name, weight in model.named_parameters() if weight.dim() > 1}
    for name, weight in moved.items():
        own = model.get_parameter(name).detach()
        assert torch.linalg.vector_norm(weight.detach() - own) == pytest.approx(GAMMA * float(own.norm()), rel=1e-9)
    there = torch.func.functional_call(model, moved, (images,))
    assert F.cross_entropy(there, labels) > plain(model, images, labels)


def test_running_statistics_are_recorded_once():
    robust_loss = a_loss("rotation", attack=no_attack)
    robust_loss.awp = GAMMA
    robust_loss(*a_batch())
    counts = [buffer for name, buffer in robust_loss.model.named_buffers() if name.endswith("num_batches_tracked")]
    assert [int(count) for count in counts] == [1] * len(counts)


class Recomputed(nn.Module):
    """A model that computes a layer's activations again in the backward pass."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh()), nn.Linear(8, 10)

    def forward(self, images):
        return self.last(checkpoint(self.first, images, use_reentrant=False))


def test_a_model_that_computes_again_in_the_backward_pass_is_refused():
    """Its gradients would be those of weights that are half perturbed."""
    model, images, labels = Recomputed().train(), torch.rand(4, 1, 8, 8), torch.arange(4)
    robust_loss = RobustLoss(model, ThreatModel("l2", 1), tasks=None, attack=no_attack, images=images, awp=GAMMA)
    match = r"activations again in the backward pass \(Sequential runs there\), which awp= does not allow"
    with pytest.raises(ValueError, match=match):
        robust_loss(images, labels)
    robust_loss.awp = 0.0
    robust_loss(images, labels)["loss"].backward()


def test_eval_mode_leaves_weights_alone():
    with_awp, without = (a_loss("rotation", attack=no_attack).eval() for _ in range(2))
    with_awp.awp = GAMMA
    assert torch.equal(with_awp(*a_batch())["loss"], without(*a_batch())["loss"])


@pytest.mark.parametrize("awp", [-0.1, 1.0, float("nan"), True, "much"])
def test_a_share_that_is_none_is_refused(awp):
    with pytest.raises(ValueError, match=r"awp is .* share of a weight's norm"):
        RobustLoss(Tiny(), ThreatModel("l2", 1), images=torch.rand(2, 3, 8, 9), awp=awp)
