"""Attacks against closed forms, against laws that every attack obeys, and against those of other packages."""

import inspect
import random
from functools import partial

import numpy as np
import pytest
import torch
from attack_problems import (
    DUAL,
    FOREIGN,
    SHAPE,
    LinearProblem,
    attack_named,
    classification,
    generator,
    small_problem,
    some_images,
)
from hypothesis import given
from hypothesis import strategies as st

from robusttune import plugins
from robusttune.attacks import declares, differentiates_once, stays_in_ball
from robusttune.threat import LossOf, ThreatModel

NORMS = [("l2", 0.5), ("linf", 0.1)]


def takes_any_loss(name):
    """Whether an attack maximises whatever loss it is given; those written elsewhere ask for labels and logits."""
    try:
        plugins.find("attacks", name)(
            LossOf(lambda images: images.sum((1, 2, 3))),
            torch.full((1, 1, 2, 2), 0.5),
            ThreatModel("linf", 0.1),
            generator=generator(),
        )
    except (ValueError, ImportError):
        return False
    return True


def stays_in_the_ball(name):
    """Whether what an attack finds is for evaluations."""
    return stays_in_ball(plugins.find("attacks", name))


every_attack = pytest.mark.parametrize("name", plugins.names("attacks"))
every_norm = pytest.mark.parametrize(("norm", "eps"), NORMS)
any_loss = pytest.mark.parametrize("name", [name for name in plugins.names("attacks") if takes_any_loss(name)])
any_loss_in_the_ball = pytest.mark.parametrize(
    "name", [name for name in plugins.names("attacks") if takes_any_loss(name) and stays_in_the_ball(name)]
)


def raising_every_loss(name):
    """The attack, where it raises the loss of images that it cannot fool, too."""
    return partial(attack_named(name), best_loss=True) if name == "adv_lib" else attack_named(name)


def from_the_image(name):
    """The attack without a random start."""
    if name == "adv_lib":
        pytest.skip("adv-lib's apgd always starts at random")
    taken = inspect.signature(attack_named(name)).parameters.values()
    if not any(one.name == "random_start" or one.kind is one.VAR_KEYWORD for one in taken):
        pytest.skip(f"{name} has no start to choose")
    return partial(attack_named(name), random_start=False)


@any_loss_in_the_ball
@pytest.mark.parametrize("norm", DUAL)
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("start", ["random", "image"])
def test_oracle_the_nearest_adversarial_image_of_a_linear_model(name, norm, classes, count, start):
    attack = attack_named(name) if start == "random" else from_the_image(name)
    problem = LinearProblem(norm, classes, count, seed=classes)
    for row, distance in enumerate(problem.distances):
        for factor, falls in ((1.05, True), (0.99, False)):
            threat = ThreatModel(norm, factor * distance)
            found = attack(LossOf(problem.margin), problem.images, threat, generator=generator(row))
            assert bool(problem.fooled(found)[row]) is falls, (row, factor)


@pytest.mark.parametrize("name", ["pgd", "apgd"])
def test_the_oracle_covers_the_built_in_attacks(name):
    assert takes_any_loss(name)
    assert stays_in_the_ball(name)


@pytest.mark.parametrize("norm", DUAL)
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("name", FOREIGN)
def test_oracle_holds_for_attacks_of_other_packages(name, norm, count):
    problem = LinearProblem(norm, 2, count, seed=7)
    loss_of = LossOf(problem.margin, labels=problem.labels, logits_of=problem.logits_of)
    for row, distance in enumerate(problem.distances):
        for factor, falls in ((1.05, True), (0.99, False)):
            threat = ThreatModel(norm, factor * distance)
            length = {} if name == "adv_lib" else {"step_size": threat.eps / 4}
            attack = partial(attack_named(name), steps=10, **length)
            found = attack(loss_of, problem.images, threat, generator=generator(row))
            assert bool(problem.fooled(found)[row]) is falls, (row, factor)


@any_loss_in_the_ball
@pytest.mark.parametrize("norm", DUAL)
@given(seed=st.integers(0, 10_000), eps=st.floats(0.01, 0.2))
def test_a_linear_loss_is_raised_by_the_dual_norm(name, norm, seed, eps):
    slope = torch.randn(SHAPE, generator=generator(seed))
    images = torch.full(SHAPE, 0.5)
    loss_of = LossOf(lambda candidates: (candidates * slope).flatten(1).sum(1))
    found = attack_named(name)(loss_of, images, ThreatModel(norm, eps), generator=generator(seed))
    gain = (loss_of(found) - loss_of(images)) / (eps * slope.flatten(1).norm(p=DUAL[norm], dim=1))
    assert (gain > 0.95).all()
    assert (gain < 1 + 1e-4).all()


@every_attack
@every_norm
@given(seed=st.integers(0, 1000), count=st.integers(1, 4), share=st.floats(0, 1))
def test_an_attack_stays_in_ball_and_box(name, norm, eps, seed, count, share):
    images = some_images((count, 2, 5, 4), seed)
    threat, weights = ThreatModel(norm, share * eps), torch.randn(40, 3, generator=generator(seed))
    loss_of = classification(lambda candidates: candidates.flatten(1) @ weights, torch.arange(count) % 3)
    found = attack_named(name)(loss_of, images, threat, generator=generator(seed))
    if stays_in_the_ball(name):
        assert (threat.size(found, images) <= threat.eps + 1e-6).all()
    assert found.min() >= 0
    assert found.max() <= 1
    assert found.shape == images.shape
    assert found.dtype == images.dtype
    assert not found.requires_grad


@every_attack
@every_norm
def test_an_attack_raises_the_loss_of_every_image(name, norm, eps):
    _, images, loss_of = small_problem()
    found = raising_every_loss(name)(loss_of, images, ThreatModel(norm, eps), generator=generator())
    assert (loss_of(found) > loss_of(images)).all()


@every_attack
@every_norm
def test_the_same_generator_gives_the_same_images(name, norm, eps):
    _, images, loss_of = small_problem()
    one, same, other = (
        attack_named(name)(loss_of, images, ThreatModel(norm, eps), generator=generator(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@every_attack
@every_norm
def test_global_random_states_are_left_alone(name, norm, eps):
    _, images, loss_of = small_problem()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    attack_named(name)(loss_of, images, ThreatModel(norm, eps), generator=generator())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]


@every_attack
@every_norm
def test_each_image_is_attacked_as_if_it_were_alone(name, norm, eps):
    model, images, loss_of = small_problem()
    attack, threat = from_the_image(name), ThreatModel(norm, eps)
    together = attack(loss_of, images, threat, generator=generator())
    for row in range(len(images)):
        alone_loss = classification(model, loss_of.labels[row : row + 1])
        alone = attack(alone_loss, images[row : row + 1], threat, generator=generator())
        # APGD compares losses to choose its steps: where two are equal but for rounding, its path may part, not its result.
        reached = alone_loss(alone), alone_loss(together[row : row + 1])
        as_strong = name == "apgd" and torch.allclose(*reached, rtol=1e-3)
        assert as_strong or torch.allclose(alone[0], together[row], atol=1e-5), row


@every_attack
@every_norm
@pytest.mark.parametrize("start", ["random", "image"])
def test_inputs_are_left_alone_views_of_other_tensors_too(name, norm, eps, start):
    attack = attack_named(name) if start == "random" else from_the_image(name)
    model, _, _ = small_problem()
    images, labels = some_images((9, *SHAPE[1:])), torch.arange(9) % 4
    before = images.clone(), labels.clone(), {key: value.clone() for key, value in model.state_dict().items()}
    loss_of = classification(model, labels[2:7])
    attack(loss_of, images[2:7], ThreatModel(norm, eps), generator=generator())
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])
    assert all(torch.equal(value, before[2][key]) for key, value in model.state_dict().items())
    assert images._version == 0


@every_attack
@pytest.mark.parametrize("norm", DUAL)
def test_a_ball_of_radius_zero_gives_a_copy_of_the_images(name, norm):
    _, images, loss_of = small_problem()
    found = attack_named(name)(loss_of, images, ThreatModel(norm, 0.0), generator=generator())
    assert torch.equal(found, images)
    assert found.data_ptr() != images.data_ptr()


@every_attack
@every_norm
@pytest.mark.parametrize("start", ["random", "image"])
def test_saturated_pixels_move(name, norm, eps, start):
    attack = raising_every_loss(name) if start == "random" else from_the_image(name)
    images = torch.stack([torch.ones(SHAPE[1:]), torch.zeros(SHAPE[1:])])

    def logits_of(candidates):
        brightness = 4 * candidates.mean((1, 2, 3))
        return torch.stack([brightness, 2 - brightness], dim=1)

    loss_of = classification(logits_of, torch.tensor([0, 1]))
    found = attack(loss_of, images, ThreatModel(norm, eps), generator=generator())
    assert (found[0] < 1).all()
    assert (found[1] > 0).all()


@every_attack
@every_norm
def test_a_loss_without_slope_gives_finite_images(name, norm, eps):
    images = some_images()
    loss_of = classification(lambda candidates: 0 * candidates.flatten(1)[:, :4], torch.zeros(5, dtype=torch.long))
    for attack in (attack_named(name), from_the_image(name)):
        found = attack(loss_of, images, ThreatModel(norm, eps), generator=generator())
        assert torch.isfinite(found).all()
    assert torch.allclose(found, images)


@every_attack
@every_norm
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_an_attack_needs_no_gradients_switched_on(name, norm, eps, mode):
    _, images, loss_of = small_problem()
    threat = ThreatModel(norm, eps)
    expected = attack_named(name)(loss_of, images, threat, generator=generator())
    with mode():
        found = attack_named(name)(loss_of, images.clone(), threat, generator=generator())
        assert torch.is_grad_enabled() is False
    assert torch.equal(found, expected)
    assert torch.is_grad_enabled()


@every_attack
@every_norm
def test_no_gradient_is_left_on_parameters_or_images(name, norm, eps):
    model, images, loss_of = small_problem()
    images.requires_grad_()
    attack_named(name)(loss_of, images, ThreatModel(norm, eps), generator=generator())
    assert images.grad is None
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


@any_loss
@every_norm
def test_an_attack_follows_the_type_and_the_memory_format_of_the_images(name, norm, eps):
    images = some_images().double().to(memory_format=torch.channels_last)
    loss_of = LossOf(lambda candidates: (candidates**2).sum((1, 2, 3)))
    found = attack_named(name)(loss_of, images, ThreatModel(norm, eps), generator=generator())
    assert found.dtype == torch.float64
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_pgd_takes_the_steps_it_is_told_to():
    images = torch.full(SHAPE, 0.5)
    calls = []

    def rising(candidates):
        calls.append(candidates)
        return candidates.sum((1, 2, 3))

    pgd = partial(attack_named("pgd"), random_start=False, steps=3, step_size=0.01)
    found = pgd(LossOf(rising), images, ThreatModel("linf", 0.1), generator=generator())
    assert len(calls) == 3
    assert torch.allclose(found, images + 0.03)


def test_pgd_without_steps_gives_its_start():
    images = some_images()
    for random_start in (True, False):
        found = attack_named("pgd")(
            LossOf(torch.sum), images, ThreatModel("l2", 0.5), generator=generator(), steps=0, random_start=random_start
        )
        assert torch.equal(found, images) is not random_start


@pytest.mark.parametrize(
    ("norm", "eps", "step_size", "theirs"),
    [
        ("linf", 8 / 255, 2 / 255, "PGD"),
        ("linf", 0.1, 0.03, "PGD"),
        ("l2", 0.5, 0.1, "PGDL2"),
        ("l2", 1.0, 0.3, "PGDL2"),
    ],
)
@pytest.mark.parametrize("count", [1, 5])
def test_pgd_agrees_with_torchattacks(norm, eps, step_size, theirs, count):
    library = pytest.importorskip("torchattacks")
    model, images, loss_of = small_problem((count, *SHAPE[1:]))
    ours = attack_named("pgd")(
        loss_of, images, ThreatModel(norm, eps), generator=generator(), steps=7, step_size=step_size, random_start=False
    )
    attack = getattr(library, theirs)(model.eval(), eps=eps, alpha=step_size, steps=7, random_start=False)
    assert (ours - attack(images, loss_of.labels)).abs().max() <= 1e-5
    assert (ours - images).abs().max() > 0.01


def test_an_attack_is_taken_for_what_it_declares_through_partials_too():
    @declares(bounded=False, differentiates_once=True)
    def declared(loss_of, images, threat, *, generator):
        return images

    def plain(loss_of, images, threat, *, generator):
        return images

    for attack, bounded, once in ((declared, False, True), (plain, True, False)):
        for own in (attack, partial(attack), partial(partial(attack), generator=generator())):
            assert (stays_in_ball(own), differentiates_once(own)) == (bounded, once)


def test_an_attack_may_say_on_the_function_itself_that_it_leaves_the_ball():
    def weakening(loss_of, images, threat, *, generator):
        return images

    weakening.bounded = False
    assert not stays_in_ball(weakening)


def test_what_an_attack_needs_is_imported_before_it_is_called():
    imported = []

    @plugins.requires(lambda: imported.append(1))
    def needing(loss_of, images, threat, *, generator):
        return images

    plugins.check_installed("attacks", partial(needing))
    assert imported == [1]
