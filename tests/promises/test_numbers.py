"""Numbers at the edge: each step, attack and evaluation gives finite numbers within ball and box, or a refusal in words."""

from contextlib import suppress
from functools import partial
from itertools import product

import pytest
import torch
from process_state import same_process
from torch import nn

import robusttune
from robusttune import RobustLoss, ThreatModel, plugins
from robusttune.evaluations.sweep import sweep
from robusttune.threat import LossOf

LABELS = torch.tensor([0, 1, 2, 0])


def drawn(seed=0):
    return torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


def one_pixel():
    images = torch.zeros(4, 3, 4, 4)
    images[:, :, 1, 2] = 1.0
    return images


# Images, factor of the weights, radius: what is usual but for one of them, and some at once.
EDGES = {
    "black": (lambda: torch.zeros(4, 3, 4, 4), 1.0, 0.1),
    "white": (lambda: torch.ones(4, 3, 4, 4), 1.0, 0.1),
    "grey": (lambda: torch.full((4, 3, 4, 4), 0.5), 1.0, 0.1),
    "one pixel": (one_pixel, 1.0, 0.1),
    "only 0 and 1": (lambda: drawn().round(), 1.0, 0.1),
    "smallest numbers": (lambda: drawn() * 1e-38, 1.0, 0.1),
    "the same image": (lambda: drawn()[:1].repeat(4, 1, 1, 1), 1.0, 0.1),
    "weights of 0": (drawn, 0.0, 0.1),
    "weights of 1e-30": (drawn, 1e-30, 0.1),
    "weights of 1e4": (drawn, 1e4, 0.1),
    "weights of 1e30": (drawn, 1e30, 0.1),
    "eps of 0": (drawn, 1.0, 0.0),
    "eps of 1e-30": (drawn, 1.0, 1e-30),
    "eps of 1e-8": (drawn, 1.0, 1e-8),
    "eps of 1": (drawn, 1.0, 1.0),
    "eps of 1e6": (drawn, 1.0, 1e6),
    "black, weights of 0, eps of 0": (lambda: torch.zeros(4, 3, 4, 4), 0.0, 0.0),
    "grey, weights of 1e4, eps of 1": (lambda: torch.full((4, 3, 4, 4), 0.5), 1e4, 1.0),
}
OBJECTIVES, NORMS = plugins.names("objectives"), plugins.names("norms")
DTYPES = (torch.float32, torch.float64)
ATTACKS = [name for name in plugins.names("attacks") if name in ("pgd", "nfgsm", "apgd", "wide_pgd")]


def sampled(*axes, by_default):
    """All combinations, of which the default run takes some."""
    every = range(0, max(map(len, axes)), 2)
    chosen = [tuple(axis[(row if axis is axes[0] else row // 2) % len(axis)] for axis in axes) for row in every]
    chosen = chosen[:by_default]
    return [pytest.param(*each, marks=() if each in chosen else pytest.mark.slow) for each in product(*axes)]


def model_of(factor, dtype=torch.float32):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).to(dtype)
    with torch.no_grad():
        model[1].weight.mul_(factor)
    return model


def is_refused(norm, eps):
    """A radius of linf beyond the range of pixels is refused, and nothing else."""
    if norm != "linf" or eps <= 1:
        return False
    with pytest.raises(ValueError, match=r"but pixels span \[0, 1\]: did you mean"):
        ThreatModel(norm, eps)
    return True


def finite(tensors):
    return all(bool(torch.isfinite(each).all()) for each in tensors if each is not None)


STEPS = sampled(list(EDGES), OBJECTIVES, NORMS, DTYPES, by_default=9)
RUNS = sampled(list(EDGES), ATTACKS, NORMS, by_default=9)
MEASURED = sampled(list(EDGES), NORMS, by_default=2)


def test_there_are_more_than_137():
    assert len(STEPS) + len(RUNS) + len(MEASURED) > 137
    assert len(ATTACKS) == 4


@pytest.mark.parametrize(("edge", "objective", "norm", "dtype"), STEPS)
def test_a_step_has_finite_losses_and_gradients(edge, objective, norm, dtype):
    make, factor, eps = EDGES[edge]
    if is_refused(norm, eps):
        return
    images, model = make(), model_of(factor, dtype)
    with same_process():
        robust_loss = RobustLoss(model, ThreatModel(norm, eps), images=images, tasks=None, steps=2, objective=objective)
        out = robust_loss(images, LABELS)
        out["loss"].backward()
    assert finite([out["loss"], out["robust"], *(each.grad for each in model.parameters())])


@pytest.mark.parametrize(("edge", "attack", "norm"), RUNS)
def test_an_attack_stays_in_ball_and_box(edge, attack, norm):
    make, factor, eps = EDGES[edge]
    if is_refused(norm, eps):
        return
    images, model, threat = make(), model_of(factor), ThreatModel(norm, eps)
    before, generator = images.clone(), torch.Generator().manual_seed(0)

    def losses(candidates):
        return nn.functional.cross_entropy(model(candidates), LABELS, reduction="none")

    with same_process():
        found = plugins.find("attacks", attack)(LossOf(losses), images, threat, generator=generator)
    assert torch.equal(images, before)
    assert finite([found])
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    if attack in ("pgd", "apgd"):  # the others look outside the ball, for training alone
        order = {"linf": float("inf"), "l2": 2}[norm]
        assert float((found - images).flatten(1).norm(order, 1).max()) <= eps * (1 + 1e-5) + 1e-6


@pytest.mark.parametrize(("edge", "norm"), MEASURED)
@pytest.mark.filterwarnings("ignore")
def test_an_evaluation_and_a_run_end_in_numbers(edge, norm):
    make, factor, eps = EDGES[edge]
    if is_refused(norm, eps):
        return
    images, model = make(), model_of(factor)
    settings = {"norm": norm, "eps": eps, "progress": False, "device": "cpu"}
    with same_process():
        records = robusttune.evaluate(model, [(images, LABELS)], ["clean", partial(sweep, steps=3)], **settings)
        with suppress(FloatingPointError):  # which says that the loss was not finite
            robusttune.harden(model, [(images, LABELS)] * 2, epochs=1, steps=1, tasks=None, **settings)
    assert all(0 <= each.value <= 1 for each in records if each.metric == "accuracy")
    assert finite(model.state_dict().values())
