"""Laws of every norm in the folder, alone and inside a ThreatModel."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robusttune import plugins
from robusttune.norms import default_eps
from robusttune.threat import ThreatModel

every_norm = pytest.mark.parametrize("norm", plugins.names("norms"))
shapes = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 6), st.integers(1, 7))
seeds = st.integers(0, 10_000)
radii = st.just(0.0) | st.floats(1e-3, 1.0)
positive_radii = st.floats(1e-3, 1.0)
ROUNDING = 1e-6


def random_values(shape, seed, scale=1.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def random_images(shape, seed):
    """Images in [0,1] of which about a third of the pixels are exactly 0 or 1."""
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 1.5 - 0.25).clamp(0, 1)


def inner(first, second):
    return (first.double() * second.double()).flatten(1).sum(1)


def length(delta):
    return delta.double().flatten(1).norm(dim=1)


@every_norm
@given(shape=shapes, seed=seeds, eps=radii, scale=st.sampled_from([0.01, 1.0, 100.0]))
def test_a_threat_projects_into_ball_and_box(norm, shape, seed, eps, scale):
    threat, images = ThreatModel(norm, eps), random_images(shape, seed)
    projected = threat.project(images + random_values(shape, seed, scale), images)
    assert (threat.size(projected, images) <= eps + ROUNDING).all()
    assert projected.min() >= 0
    assert projected.max() <= 1


@every_norm
@given(shape=shapes, seed=seeds, eps=radii)
def test_a_threat_projects_twice_as_once(norm, shape, seed, eps):
    threat, images = ThreatModel(norm, eps), random_images(shape, seed)
    once = threat.project(images + random_values(shape, seed), images)
    assert torch.allclose(threat.project(once, images), once, atol=ROUNDING)


@every_norm
@given(shape=shapes, seed=seeds, eps=radii)
def test_a_threat_leaves_allowed_images_alone(norm, shape, seed, eps):
    threat, images = ThreatModel(norm, eps), random_images(shape, seed)
    assert torch.equal(threat.project(images, images), images)


@every_norm
@given(shape=shapes, seed=seeds, eps=positive_radii, scale=st.sampled_from([0.1, 1.0, 10.0]))
def test_a_projection_is_the_nearest_point_of_the_ball(norm, shape, seed, eps, scale):
    geometry, delta = plugins.find("norms", norm), random_values(shape, seed, scale)
    projected = geometry.project(delta, eps)
    assert (geometry.size(projected) <= eps + ROUNDING).all()
    nearest = length(delta - projected)
    for number in range(10):
        # The ball is convex, so points near the projection are those that would be nearer if any were.
        anywhere = geometry.project(random_values(shape, seed + 1 + number, 2 * eps), eps)
        nearby = geometry.project(projected + (anywhere - projected) * 0.01, eps)
        for feasible in (anywhere, nearby):
            assert (nearest <= length(delta - feasible) + ROUNDING).all()


@every_norm
@given(shape=shapes, seed=seeds, eps=positive_radii)
def test_a_projection_keeps_what_is_inside(norm, shape, seed, eps):
    geometry, delta = plugins.find("norms", norm), random_values(shape, seed)
    inside = geometry.project(delta, eps) * 0.99
    assert torch.allclose(geometry.project(inside, eps), inside, atol=0, rtol=1e-6)


@every_norm
@given(shape=shapes, seed=seeds, scale=st.sampled_from([1e-30, 1e-8, 1.0, 1e30]))
def test_ascent_has_norm_one_however_small_the_gradient(norm, shape, seed, scale):
    geometry, gradient = plugins.find("norms", norm), random_values(shape, seed)
    steps = geometry.ascent(gradient * scale)
    assert torch.allclose(geometry.size(steps), torch.ones(shape[0]), atol=1e-5)
    assert torch.allclose(steps, geometry.ascent(gradient), atol=1e-5)


@every_norm
@given(shape=shapes, seed=seeds)
def test_ascent_of_a_zero_gradient_is_zero_and_leaves_the_other_images_alone(norm, shape, seed):
    geometry, gradient = plugins.find("norms", norm), random_values(shape, seed)
    gradient[0] = 0
    steps = geometry.ascent(gradient)
    assert torch.equal(steps[0], torch.zeros(shape[1:]))
    assert torch.allclose(geometry.size(steps[1:]), torch.ones(shape[0] - 1), atol=1e-5)


@every_norm
@pytest.mark.parametrize("finite", [-2.0, 0.0])
def test_ascent_takes_infinite_slopes_for_the_largest_and_none_for_zero(norm, finite):
    gradient = torch.tensor([finite, math.inf, -math.inf, math.nan]).reshape(1, 1, 2, 2)
    geometry = plugins.find("norms", norm)
    steps = geometry.ascent(gradient).flatten()
    assert torch.equal(steps.sign(), torch.tensor([finite, 1.0, -1.0, 0.0]).sign())
    assert steps[1] == -steps[2]
    assert geometry.size(steps.reshape(1, 1, 2, 2)) == pytest.approx(1.0)


@every_norm
@given(shape=shapes, seed=seeds)
def test_no_direction_of_the_same_norm_climbs_faster_than_ascent(norm, shape, seed):
    geometry, gradient = plugins.find("norms", norm), random_values(shape, seed)
    gain = inner(geometry.ascent(gradient), gradient)
    for number in range(10):
        other = geometry.project(gradient + random_values(shape, seed + 1 + number, 3.0), 1.0)
        assert (inner(other, gradient) <= gain * (1 + 1e-5)).all()


@every_norm
@given(shape=shapes, seed=seeds, factor=st.floats(-3, 3))
def test_size_grows_in_proportion_and_looks_at_each_image_alone(norm, shape, seed, factor):
    geometry, delta = plugins.find("norms", norm), random_values(shape, seed)
    size = geometry.size(delta)
    assert size.shape == shape[:1]
    assert torch.allclose(geometry.size(delta * factor), size * abs(factor), atol=1e-5)
    assert torch.allclose(torch.cat([geometry.size(each[None]) for each in delta]), size)


@every_norm
@given(shape=shapes, seed=seeds, eps=positive_radii)
def test_noise_lies_in_the_ball_and_differs_between_images(norm, shape, seed, eps):
    geometry = plugins.find("norms", norm)
    images = torch.zeros(2 * shape[0], *shape[1:])
    noise = geometry.noise(images, eps, torch.Generator().manual_seed(seed))
    assert noise.shape == images.shape
    assert (geometry.size(noise) <= eps + ROUNDING).all()
    assert len(torch.unique(noise.flatten(1), dim=0)) == len(images)


@every_norm
@given(shape=shapes, seed=seeds, eps=positive_radii)
def test_a_start_is_allowed_and_follows_the_generator(norm, shape, seed, eps):
    threat, images = ThreatModel(norm, eps), random_images(shape, seed)
    start = threat.start(images, torch.Generator().manual_seed(seed))
    assert (threat.size(start, images) <= eps + ROUNDING).all()
    assert start.min() >= 0
    assert start.max() <= 1
    assert torch.equal(start, threat.start(images, torch.Generator().manual_seed(seed)))


@every_norm
def test_noise_reaches_far_into_the_ball_for_every_batch_size(norm):
    geometry = plugins.find("norms", norm)
    for count in (1, 5):
        images, generator = torch.zeros(count, 3, 6, 7), torch.Generator().manual_seed(0)
        sizes = torch.stack([geometry.size(geometry.noise(images, 0.5, generator)) for _ in range(50)])
        assert (sizes.amax(0) > 0.4).all()


@every_norm
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_type_of_the_images_is_kept(norm, dtype):
    threat, images = ThreatModel(norm, 0.1), torch.full((2, 3, 4, 5), 0.5, dtype=dtype)
    start = threat.start(images, torch.Generator())
    assert start.dtype == threat.ascent(images).dtype == threat.size(start, images).dtype == dtype


@every_norm
@given(shape=shapes, seed=seeds)
def test_nothing_is_written_into_an_argument(norm, shape, seed):
    threat, images = ThreatModel(norm, 0.1), random_images(shape, seed)
    candidates = images + random_values(shape, seed)
    before = images.clone(), candidates.clone()
    threat.project(candidates, images)
    threat.ascent(candidates)
    threat.start(images, torch.Generator())
    assert torch.equal(images, before[0])
    assert torch.equal(candidates, before[1])


@pytest.mark.parametrize(
    ("norm", "shape", "eps"),
    [
        ("linf", (3, 32, 32), 8 / 255),
        ("linf", (1, 28, 28), 8 / 255),
        ("linf", (3, 64, 64), 8 / 255),
        ("linf", (3, 112, 112), 6 / 255),
        ("linf", (3, 160, 160), 4 / 255),
        ("linf", (3, 224, 224), 4 / 255),
        ("l2", (3, 32, 32), 0.5),
        ("l2", (1, 28, 28), 0.5 * math.sqrt(784 / 3072)),
        ("l2", (3, 224, 224), 3.0),
        ("l2", (3, 448, 448), 6.0),
        # Halfway between 3·32² and 3·224² in logarithms lies the geometric mean of 0.5 and 3.
        ("l2", (3, 32, 224), math.sqrt(0.5 * 3.0)),
    ],
)
def test_default_radius(norm, shape, eps):
    assert default_eps(norm, shape) == pytest.approx(eps)


@every_norm
def test_default_radius_is_positive_and_has_no_jumps(norm):
    radii = [default_eps(norm, (3, side, side)) for side in range(8, 300)]
    assert min(radii) > 0
    assert all(abs(a - b) <= 0.2 * a for a, b in pairwise(radii))
