"""The judges: attacks of three packages and of this one at the same settings, each (problem) -> which images keep their class."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robusttune import plugins
from robusttune.attacks import LossOf, ThreatModel
from robusttune.measuring.losses import cross_entropy, margin, targeted_margin

STEPS, TARGETS = 100, 9
TARGET_STEPS = 50  # of the evaluation `strong`
SLACK = 1e-5  # of the radius, by rounding
AGAIN = "torchattacks APGD-T, another start"


class Problem(NamedTuple):
    """A model, images (N,C,H,W) with labels (N,) that it classifies correctly, an adversary, and a source of random numbers."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    threat: ThreatModel
    generator: torch.Generator


Loss = Callable[[Tensor, Tensor], Tensor]
Attack = Callable[[Problem], Tensor]


def probability_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the largest wrong probability minus the right one: (N,). Source: arXiv:2411.15210."""
    return margin(logits.softmax(1), labels)


def package(problem: Problem, name: str, attack: str, **settings: object) -> Tensor:
    """Return the images (N,C,H,W) that an attack of another package finds, through its adapter."""
    model, labels = problem.model, problem.labels
    loss_of = LossOf(lambda images: cross_entropy(model(images), labels), labels=labels, logits_of=model)
    search = plugins.configured("attacks", name, name=attack, **settings)
    return search(loss_of, problem.images, problem.threat, generator=problem.generator)


def original(problem: Problem, *, targeted: bool) -> Tensor:
    """Return the images (N,C,H,W) that the package of APGD's authors finds."""
    from autoattack.autopgd_base import APGDAttack, APGDAttack_targeted

    seed = int(torch.randint(2**31, (1,), generator=problem.generator))
    norm = {"linf": "Linf", "l2": "L2"}[str(problem.threat.norm)]
    settings = {"n_iter": STEPS, "norm": norm, "eps": problem.threat.eps, "seed": seed, "device": "cpu"}
    if targeted:
        attack = APGDAttack_targeted(problem.model, n_target_classes=TARGETS, **settings)
    else:
        attack = APGDAttack(problem.model, loss="ce", **settings)
    return attack.perturb(problem.images, problem.labels)


def ours(problem: Problem, loss: Loss, steps: int = STEPS) -> Tensor:
    """Return the images (N,C,H,W) that this library's APGD finds for a loss."""
    model, labels = problem.model, problem.labels
    attack = plugins.configured("attacks", "apgd", steps=steps)
    loss_of = LossOf(lambda images: loss(model(images), labels))
    return attack(loss_of, problem.images, problem.threat, generator=problem.generator)


def toward_classes(problem: Problem, steps: int = STEPS) -> Tensor:
    """Return the images (N,C,H,W) that this library's APGD finds toward the likeliest wrong classes, one after the other."""
    found, alive = problem.images.clone(), torch.ones_like(problem.labels, dtype=torch.bool)
    with torch.no_grad():
        logits = problem.model(problem.images)
    wrong = logits.scatter(1, problem.labels[:, None], -torch.inf).topk(TARGETS, dim=1).indices
    for number in range(TARGETS):
        rows = torch.nonzero(alive).flatten()
        if not len(rows):
            break
        part = problem._replace(images=problem.images[rows], labels=problem.labels[rows])
        found[rows] = ours(part, partial(targeted_margin, wrong[rows, number]), steps)
        alive[rows] = keeps(part, found[rows])
    return found


def keeps(problem: Problem, found: Tensor) -> Tensor:
    """Return which images (N,) keep their class."""
    with torch.no_grad():
        return problem.model(found).argmax(1) == problem.labels


def attacked(problem: Problem, judge: str) -> Tensor:
    """Return which images (N,) keep their class under the attack of a judge.

    Raises:
        ValueError: the attack left the ball or the box.
    """
    found = JUDGES[judge](problem)
    too_far = problem.threat.size(found, problem.images) > problem.threat.eps * (1 + SLACK)
    if bool(too_far.any()) or bool((found < 0).any()) or bool((found > 1).any()):
        raise ValueError(f"{judge} left the ball or the box: its answers would not be of this adversary")
    return keeps(problem, found)


TORCHATTACKS = partial(package, name="torchattacks", steps=STEPS)
ADV_LIB = partial(package, name="adv_lib", steps=STEPS)
ORIGINAL: dict[str, Attack] = {
    "original APGD-CE": partial(original, targeted=False),
    "original APGD-T": partial(original, targeted=True),
}
JUDGES: dict[str, Attack] = {
    "torchattacks APGD-CE": partial(TORCHATTACKS, attack="APGD", loss="ce"),
    "torchattacks APGD-T": partial(TORCHATTACKS, attack="APGDT", n_classes=TARGETS + 1),
    "adv-lib APGD-CE": partial(ADV_LIB, attack="apgd", loss_function="ce"),
    "adv-lib APGD-T": partial(ADV_LIB, attack="apgd_targeted", num_targets=TARGETS),
    **ORIGINAL,
    "robusttune cross-entropy": partial(ours, loss=cross_entropy),
    "robusttune margin": partial(ours, loss=margin),
    "robusttune probability margin": partial(ours, loss=probability_margin),
    "robusttune targeted": toward_classes,
    "robusttune targeted, 50 steps": partial(toward_classes, steps=TARGET_STEPS),
    AGAIN: partial(TORCHATTACKS, attack="APGDT", n_classes=TARGETS + 1),
}
