"""Auto-PGD against the paper's algorithm told image by image, against torchattacks, and beside PGD."""

import math
from functools import partial

import pytest
import torch
from third_parties import a_batch, a_loss
from torch import nn
from torch.nn import functional as F

from robusttune import plugins
from robusttune.attacks.apgd import apgd
from robusttune.attacks.pgd import pgd
from robusttune.threat import LossOf, ThreatModel

RADII = {"linf": 0.2, "l2": 1.0}
every_norm = pytest.mark.parametrize("norm", RADII)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def shifting_stripes(count, seed):
    """Images (N,1,8,8) of noisy stripes at one of four slants, which are their labels."""
    chance = generator(seed)
    labels = torch.randint(4, (count,), generator=chance)
    x, y = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    waves = torch.stack([x, y, x + y, x - y])[labels] * 1.2 + 6 * torch.rand(count, 1, 1, generator=chance)
    noise = 0.15 * torch.randn(count, 8, 8, generator=chance)
    return (0.5 + 0.35 * torch.sin(waves) + noise).clamp(0, 1)[:, None], labels


@pytest.fixture(scope="module")
def problem():
    """A small trained network, images that it gets right, and their labels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv = nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(), nn.Flatten()
        model = nn.Sequential(*conv, nn.Linear(144, 4))
        optimizer = torch.optim.Adam(model.parameters(), 5e-3)
        for step in range(60):
            images, labels = shifting_stripes(64, seed=step)
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
    images, labels = shifting_stripes(80, seed=1000)
    right = model.eval()(images).argmax(1) == labels
    assert right.sum() > 70
    return model.requires_grad_(False), images[right], labels[right]


def entropy(problem):
    model, _, labels = problem
    return LossOf(lambda images: F.cross_entropy(model(images), labels, reduction="none"))


def projected(candidate, image, norm, eps):
    delta = candidate - image
    shorter = delta * min(1.0, eps / max(float(delta.norm()), 1e-30))
    return (image + (delta.clamp(-eps, eps) if norm == "linf" else shorter)).clamp(0, 1)


def naive_apgd(loss, image, norm, eps, steps, rho):
    """Algorithm 1 of arXiv:2003.01690 for one image, from the image itself, and how often it halved its step."""

    def slope(at):
        (gradient,) = torch.autograd.grad(loss(at.requires_grad_()), at)
        return gradient.sign() if norm == "linf" else gradient / gradient.norm()

    def step_from(at, length):
        return projected(at + length * slope(at.clone()), image, norm, eps)

    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    checks = [math.ceil(round(share * steps, 9)) for share in shares]
    eta, f, best, halvings = 2 * eps, lambda at: float(loss(at)), None, 0
    x = [image, step_from(image, eta)]
    values = [f(x[0]), f(x[1])]
    best = x[1] if values[1] > values[0] else x[0]
    tops, etas = {0: values[0]}, {0: eta}
    for k in range(1, steps + 1):
        if k > 1:
            z = step_from(x[-1], eta)
            x.append(projected(x[-1] + 0.75 * (z - x[-1]) + 0.25 * (x[-1] - x[-2]), image, norm, eps))
            values.append(f(x[-1]))
            best = x[-1] if values[-1] > f(best) else best
        if k in checks and k < steps:
            last = max(check for check in checks if check < k)
            rises = sum(values[i + 1] > values[i] for i in range(last, k))
            tops[k], etas[k] = f(best), eta
            if rises < rho * (k - last) or (etas[k] == etas[last] and tops[k] == tops[last]):
                eta, x[-1], values[-1], halvings = eta / 2, best, f(best), halvings + 1
    return best, halvings


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 50])
# On rougher ground, l2 steps would differ by rounding that grows; a sign does not round.
@pytest.mark.parametrize(("norm", "roughness"), [("linf", 0.4), ("linf", 3.0), ("l2", 0.4)])
@pytest.mark.parametrize("rho", [0.75, 0.3])
def test_the_algorithm_is_the_papers(norm, roughness, steps, rho):
    chance = generator(3)
    images = torch.rand(7, 2, 4, 3, generator=chance, dtype=torch.float64)
    first, second = (torch.randn(24, 24, generator=chance, dtype=torch.float64) for _ in range(2))

    def rugged(candidates):
        return (torch.sin(roughness * candidates.flatten(1) @ first) @ second).tanh().sum(1)

    settings = {"steps": steps, "rho": rho, "random_start": False}
    found = apgd(LossOf(rugged), images, ThreatModel(norm, RADII[norm]), generator=generator(), **settings)
    naive = [naive_apgd(lambda at: rugged(at[None])[0], image, norm, RADII[norm], steps, rho) for image in images]
    assert torch.allclose(found, torch.stack([best for best, _ in naive]), rtol=0, atol=1e-9)
    if steps == 50:  # and images differ in when they halve their steps
        assert len({halvings for _, halvings in naive}) > 1


@pytest.mark.sample(6)
@every_norm
@pytest.mark.parametrize("steps", [20, 100])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_the_loss_reached_is_that_of_torchattacks(problem, norm, steps, seed, share):
    library = pytest.importorskip("torchattacks")
    model, images, labels = problem
    loss_of, threat = entropy(problem), ThreatModel(norm, share * RADII[norm])
    found = apgd(loss_of, images, threat, generator=generator(seed), steps=steps)
    attack = library.APGD(model, norm=norm.capitalize(), eps=threat.eps, steps=steps, loss="ce")
    attack.device = images.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # The public call gives the last wrong image instead of that with the highest loss.
        theirs = attack.attack_single_run(images, labels)[0]
    assert loss_of(found).mean() >= 0.99 * loss_of(theirs).mean()
    assert loss_of(found).mean() > 2 * loss_of(images).mean()
    assert (threat.size(found, images) <= threat.eps + 1e-6).all()
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.sample(4)
@every_norm
@pytest.mark.parametrize("share", [0.5, 1.0])
@pytest.mark.parametrize("steps", [5, 10, 40])
def test_the_loss_reached_is_no_lower_than_that_of_pgd(problem, norm, share, steps):
    loss_of, threat = entropy(problem), ThreatModel(norm, share * RADII[norm])
    ours, theirs = (
        torch.stack(
            [loss_of(attack(loss_of, problem[1], threat, generator=generator(seed), steps=steps)) for seed in range(3)]
        ).mean()
        for attack in (apgd, pgd)
    )
    assert ours >= theirs


@every_norm
def test_more_steps_find_more(problem, norm):
    loss_of, threat = entropy(problem), ThreatModel(norm, RADII[norm])
    losses = [
        loss_of(apgd(loss_of, problem[1], threat, generator=generator(), steps=steps)).mean()
        for steps in (1, 2, 10, 100)
    ]
    assert losses == sorted(losses)
    assert losses[0] > loss_of(problem[1]).mean()


@every_norm
@pytest.mark.parametrize("steps", [1, 2])
def test_short_budgets_reach_the_optimum_of_a_linear_loss(norm, steps):
    slope = torch.randn(5, 2, 4, 3, generator=generator(1))
    images, threat = torch.full(slope.shape, 0.5), ThreatModel(norm, 0.1)
    loss_of = LossOf(lambda candidates: (candidates * slope).flatten(1).sum(1))
    optimum = images + 0.1 * threat.ascent(slope)
    attack = partial(apgd, loss_of, images, threat, steps=steps)
    assert torch.allclose(attack(generator=generator(), random_start=False), optimum, atol=1e-6)
    # From the edge of an l2 ball, a step of 2·eps that is brought back does not point to the optimum yet.
    share = {("linf", 1): 1, ("linf", 2): 1, ("l2", 1): 0.8, ("l2", 2): 0.9}[norm, steps]
    for seed in range(5):
        found = attack(generator=generator(seed))
        gain = (loss_of(found) - loss_of(images)) / (loss_of(optimum) - loss_of(images))
        assert (gain > share - 1e-5).all(), gain


@every_norm
def test_the_random_start_lies_on_the_edge_of_the_ball(norm):
    images, threat = torch.full((20, 1, 3, 4), 0.5), ThreatModel(norm, 0.2)
    flat = LossOf(lambda candidates: 0 * candidates.sum((1, 2, 3)))
    found = apgd(flat, images, threat, generator=generator())
    assert torch.allclose(threat.size(found, images), torch.full((20,), 0.2))
    assert len(torch.unique(found.flatten(1), dim=0)) == 20


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_best_of_all_that_was_tried_is_returned_and_the_last_look_takes_no_gradient(steps):
    tried, slopes = [], []

    def rugged(candidates):
        loss = torch.sin(40 * candidates).sum((1, 2, 3))
        tried.append(loss.detach())
        slopes.append(loss.requires_grad)
        return loss

    images = torch.rand(6, 1, 3, 2, generator=generator())
    found = apgd(LossOf(rugged), images, ThreatModel("linf", 0.3), generator=generator(), steps=steps)
    assert slopes == [True] * steps + [False]
    highest = torch.stack(tried).amax(0)
    assert torch.equal(rugged(found), highest)


def test_the_first_steps_are_as_long_as_one_says():
    images = torch.full((3, 1, 2, 2), 0.5)
    rising = LossOf(lambda candidates: candidates.sum((1, 2, 3)))
    settings = {"random_start": False, "steps": 2, "step_size": 0.01}
    found = apgd(rising, images, ThreatModel("linf", 0.1), generator=generator(), **settings)
    # The second step adds 0.75 of its own length and a quarter of the first.
    assert torch.allclose(found, images + 0.02)


def test_without_steps_the_start_is_returned():
    images = torch.rand(3, 1, 2, 2, generator=generator())
    rising = LossOf(lambda candidates: candidates.sum((1, 2, 3)))
    found = apgd(rising, images, ThreatModel("l2", 0.5), generator=generator(), steps=0, random_start=False)
    assert torch.equal(found, images)


def test_a_loss_that_is_not_a_number_on_the_way_leaves_the_best_so_far():
    images = torch.full((2, 1, 2, 2), 0.5)

    def broken_far_out(candidates):
        brightness = candidates.sum((1, 2, 3))
        return torch.where(brightness > 2.15, torch.nan, brightness)

    settings = {"random_start": False, "steps": 20, "step_size": 0.01}
    found = apgd(LossOf(broken_far_out), images, ThreatModel("linf", 0.1), generator=generator(), **settings)
    assert found.isfinite().all()
    assert (broken_far_out(found) > 2.1).all()


def test_a_norm_of_ones_own_is_enough():
    images, slope = torch.full((2, 1, 3, 3), 0.5), torch.randn(2, 1, 3, 3, generator=generator())
    loss_of = LossOf(lambda candidates: (candidates * slope).flatten(1).sum(1))
    one, other = (
        apgd(loss_of, images, ThreatModel(norm, 0.2), generator=generator())
        for norm in ("l2", plugins.find("norms", "l2"))
    )
    assert torch.equal(one, other)


@pytest.mark.parametrize("attack_tasks", ["none", "separate", "joint"])
@pytest.mark.parametrize("attack", ["apgd", partial(apgd, rho=0.5)], ids=["name", "partial"])
def test_it_trains(attack, attack_tasks):
    robust_loss = a_loss("rotation", "patch", attack=attack, attack_tasks=attack_tasks, steps=2, step_size=0.3)
    out = robust_loss(*a_batch())
    out["loss"].backward()
    assert all(value.isfinite().all() for value in out.values())
    assert all(parameter.grad.isfinite().all() for parameter in robust_loss.parameters())


def test_a_slope_without_end_does_not_end_the_search():
    signs = torch.tensor([1.0, -1.0]).repeat(8).reshape(1, 1, 4, 4)
    loss_of = LossOf(lambda images: (signs * images.sqrt()).sum((1, 2, 3)))
    images = torch.full((8, 1, 4, 4), 0.1)
    found = apgd(loss_of, images, ThreatModel("l2", 0.5), generator=generator(), steps=20)
    assert (found == 0).any()  # where the slope has no end
    assert (loss_of(found) > 2).all()
