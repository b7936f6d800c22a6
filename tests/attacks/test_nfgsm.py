"""N-FGSM: the authors' formula, how far it goes, and what it costs."""

import pytest
import torch
from third_parties import a_batch, a_loss

from robusttune import plugins
from robusttune.attacks.nfgsm import nfgsm
from robusttune.attacks.pgd import pgd
from robusttune.threat import LossOf, ThreatModel

RADII = {"linf": 0.1, "l2": 0.5}
every_norm = pytest.mark.parametrize("norm", RADII)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def bowl(candidates):
    """A loss whose slope is another one at each place."""
    return ((candidates - 0.4) ** 2).sum((1, 2, 3))


@pytest.mark.parametrize(("noise", "step"), [(2.0, 1.0), (1.0, 1.25), (0.5, 0.0)])
@pytest.mark.parametrize("sign", [1, -1])  # away from 0.4 and out of the box, or toward it
def test_the_formula_is_the_authors(noise, step, sign):
    images, eps = torch.rand(6, 3, 4, 5, generator=generator(1)), 0.15
    settings = {"noise": noise, "step": step}
    loss_of = LossOf(lambda candidates: sign * bowl(candidates))
    found = nfgsm(loss_of, images, ThreatModel("linf", eps), generator=generator(2), **settings)
    eta = (2 * torch.rand(images.shape, generator=generator(2)) - 1) * noise * eps
    eta = torch.max(torch.min(eta, 1 - images), 0 - images)
    slope = 2 * sign * (images + eta - 0.4)
    delta = torch.max(torch.min(eta + step * eps * slope.sign(), 1 - images), 0 - images)
    assert torch.allclose(found, images + delta, atol=1e-6)


@every_norm
def test_it_leaves_the_ball_and_says_so(norm):
    threat, images = ThreatModel(norm, RADII[norm]), torch.full((200, 3, 4, 5), 0.5)
    found = nfgsm(LossOf(bowl), images, threat, generator=generator())
    sizes = threat.size(found, images) / threat.eps
    assert (sizes > 1.2).float().mean() > 0.5
    assert (sizes <= 3 + 1e-5).all()
    assert nfgsm.bounded is False
    assert getattr(plugins.find("attacks", "pgd"), "bounded", True)


@every_norm
def test_noise_fills_the_larger_ball(norm):
    threat, images = ThreatModel(norm, RADII[norm]), torch.full((2000, 1, 4, 5), 0.5)
    delta = nfgsm(LossOf(bowl), images, threat, generator=generator(), noise=2.0, step=0.0) - images
    spread = (delta if norm == "linf" else threat.geometry.size(delta)) / threat.eps
    assert spread.abs().max() <= 2 + 1e-5
    assert spread.abs().max() > 1.99
    # Uniform on [0, 2] where signs are left out.
    assert spread.abs().mean().item() == pytest.approx(1.0, abs=0.03)
    assert spread.abs().var().item() == pytest.approx(1 / 3, abs=0.03)


@every_norm
def test_without_noise_it_is_one_step_of_pgd_from_the_image(norm):
    images, threat = torch.rand(5, 3, 4, 5, generator=generator()), ThreatModel(norm, RADII[norm])
    found = nfgsm(LossOf(bowl), images, threat, generator=generator(), noise=0.0)
    settings = {"steps": 1, "step_size": threat.eps, "random_start": False}
    expected = pgd(LossOf(bowl), images, threat, generator=generator(), **settings)
    assert torch.allclose(found, expected, atol=1e-6)


@every_norm
def test_each_image_is_attacked_as_if_it_were_alone(norm):
    # Without noise there is no chance to differ by; the batch of the contract tests has a start to choose.
    images, threat = torch.rand(5, 3, 4, 5, generator=generator()), ThreatModel(norm, RADII[norm])
    together = nfgsm(LossOf(bowl), images, threat, generator=generator(), noise=0.0)
    for row in range(5):
        alone = nfgsm(LossOf(bowl), images[row : row + 1], threat, generator=generator(), noise=0.0)
        assert torch.allclose(alone[0], together[row], atol=1e-6)


def test_it_costs_one_gradient():
    slopes = []

    def watched(candidates):
        slopes.append(candidates.requires_grad)
        return bowl(candidates)

    nfgsm(LossOf(watched), torch.rand(2, 1, 3, 3), ThreatModel("linf", 0.1), generator=generator())
    assert slopes == [True]


@pytest.mark.parametrize("attack_tasks", ["none", "separate", "joint"])
@every_norm
def test_it_trains(attack_tasks, norm):
    robust_loss = a_loss("rotation", "patch", attack="nfgsm", attack_tasks=attack_tasks, norm=norm, eps=RADII[norm])
    out = robust_loss(*a_batch())
    out["loss"].backward()
    assert all(value.isfinite().all() for value in out.values())
    assert all(parameter.grad.isfinite().all() for parameter in robust_loss.parameters())
