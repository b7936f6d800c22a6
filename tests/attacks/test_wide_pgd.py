"""PGD in a larger ball: it is PGD of that radius, leaves the threat model's."""

import pytest
import torch
from attack_problems import generator
from third_parties import a_batch, a_loss

from robusttune.attacks.pgd import pgd
from robusttune.attacks.wide_pgd import wide_pgd
from robusttune.threat import LossOf, ThreatModel

RADII = {"linf": 0.1, "l2": 0.5}
every_norm = pytest.mark.parametrize("norm", RADII)


def bowl(candidates):
    """A loss whose slope is another one at each place."""
    return ((candidates - 0.4) ** 2).sum((1, 2, 3))


@every_norm
@pytest.mark.parametrize("width", [1.0, 1.25, 2.0])
def test_it_is_pgd_of_the_larger_radius(norm, width):
    images, loss_of = torch.rand(6, 3, 4, 5, generator=generator(1)), LossOf(bowl)
    found = wide_pgd(loss_of, images, ThreatModel(norm, RADII[norm]), generator=generator(2), steps=3, width=width)
    asked = pgd(loss_of, images, ThreatModel(norm, width * RADII[norm]), generator=generator(2), steps=3)
    assert torch.equal(found, asked)


@every_norm
def test_it_reaches_a_quarter_beyond_the_radius_and_says_so(norm):
    threat, images = ThreatModel(norm, RADII[norm]), torch.full((20, 3, 4, 5), 0.5)
    sizes = threat.size(wide_pgd(LossOf(bowl), images, threat, generator=generator()), images) / threat.eps
    assert (sizes <= 1.25 + 1e-5).all()
    assert (sizes > 1.2).all()
    assert wide_pgd.bounded is False


def test_all_pixels_are_the_largest_ball_of_linf():
    images = torch.rand(4, 1, 3, 3, generator=generator(1))
    found = wide_pgd(LossOf(bowl), images, ThreatModel("linf", 0.9), generator=generator(2))
    assert torch.equal(found, pgd(LossOf(bowl), images, ThreatModel("linf", 1.0), generator=generator(2), steps=2))


@every_norm
def test_it_trains_against_the_pretext_loss_too(norm):
    robust_loss = a_loss("rotation", "patch", attack="wide_pgd", attack_tasks="joint", norm=norm, eps=RADII[norm])
    out = robust_loss(*a_batch())
    out["loss"].backward()
    assert all(value.isfinite().all() for value in out.values())
    assert all(parameter.grad.isfinite().all() for parameter in robust_loss.parameters())
