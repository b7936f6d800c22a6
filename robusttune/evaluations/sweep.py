"""Accuracy under attacks of growing radius."""

import math
from collections.abc import Sequence
from functools import partial

from torch import Tensor

from robusttune import plugins
from robusttune.attacks import Attack, AttackLike, has_own_loss, stays_in_ball
from robusttune.evaluations import (
    LOSSES,
    LossName,
    Passes,
    Record,
    Steps,
    Subject,
    accuracy,
    attack_passes,
    attacks_at,
    checked_by,
    hits,
    losses_for,
    steps_for,
    takes,
)
from robusttune.norms import NormLike, canonical, default_eps, radii
from robusttune.threat import ThreatModel

__all__ = ["sweep"]

SAME = 1e-5  # of a radius: reports take closer ones as one
MULTIPLES = {"l2": (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0), "linf": (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)}


def _passes(
    subject: Subject,
    *,
    norms: Sequence[NormLike] | None,
    eps: Sequence[float] | None,
    attack: AttackLike,
    steps: Steps,
    losses: Sequence[LossName],
) -> Passes:
    threats = _attacked(subject, norms=norms, eps=eps)
    if not threats:
        return Passes(1)
    each = attack_passes(subject, _configured(attack, steps), threats[0])
    return Passes(1).plus(each, len(losses_for(attack, losses)) * len(threats))


def _check(subject: Subject, *, attack: AttackLike, steps: Steps, losses: Sequence[LossName]) -> None:
    if not stays_in_ball(plugins.find("attacks", attack)):
        raise ValueError(
            f"{_name(attack)} leaves the ball, so what it finds is no adversarial example: it is for training alone; "
            "evaluate with attack='pgd' or 'apgd'"
        )
    _configured(attack, steps)
    if isinstance(losses, str) or not losses or any(loss not in LOSSES for loss in losses):
        raise ValueError(
            f"losses is {losses!r}, but a list of some of {', '.join(LOSSES)} is needed: without one, nothing would be attacked"
        )


def _configured(attack: AttackLike, steps: Steps) -> Attack:
    return plugins.configured("attacks", attack, steps=steps_for(attack, steps))


def _attacked(subject: Subject, *, norms: Sequence[NormLike] | None, eps: Sequence[float] | None) -> list[ThreatModel]:
    return [threat for norm in _swept(subject, norms) for threat in _threats(subject, norm, eps) if threat.eps > 0]


@attacks_at(_attacked)
@checked_by(_check)
@takes(_passes)
def sweep(
    subject: Subject,
    *,
    norms: Sequence[NormLike] | None = None,
    eps: Sequence[float] | None = None,
    attack: AttackLike = "apgd",
    steps: Steps = "auto",
    losses: Sequence[LossName] = ("cross_entropy", "margin"),
) -> list[Record]:
    """Measure the accuracy under attack for radii from 0 to well past the training radius, in both norms.

    An image counts as robust at a radius if no attack up to that radius makes the answer wrong. An image that fell at a
    smaller radius is not attacked again, so accuracy never rises with the radius.

    Args:
        subject: the model and its images.
        norms: the adversary's norms; by default the training norm first, then every other one.
        eps: radii in pixel units on [0,1], for all norms; by default multiples of the training radius (for a norm that was
            not trained on, of its usual radius).
        attack: by name, or any `(loss_of, images, threat, *, generator) -> images`.
        steps: the number of steps of the attack; "auto" for those of a `partial(attack, steps=…)`, otherwise 50, or none for an attack of yours
            without `steps`; None for the attack's default.
        losses: the losses that the attack maximises, one after the other: "cross_entropy", "margin". An attack of another package has
            a loss of its own, and runs once.

    Raises:
        ValueError: the attack leaves the ball, is a partial with other steps, or steps are asked of one that has no setting `steps`; unknown
            losses, or none.

    Source: Carlini et al., arXiv:1902.06705, sections 5.4 and 5.5.
    """
    _check(subject, attack=attack, steps=steps, losses=losses)
    configured, used = _configured(attack, steps), losses_for(attack, losses)
    swept = _swept(subject, norms)
    threats = {norm: _threats(subject, norm, eps) for norm in swept}
    single: dict[ThreatModel, list[int]] = {threat: [] for norm in swept for threat in threats[norm]}
    true: list[int] = []
    for pixels, labels, size in subject.windows():
        unchanged = subject.predicted(pixels, size)
        true += labels.tolist()
        for norm in swept:
            answers = unchanged
            for threat in threats[norm]:
                answers = _after(subject, pixels, labels, answers, configured, threat, losses=used, size=size)
                single[threat] += answers.tolist()
    right = {threat: hits(answers_to, true) for threat, answers_to in single.items()}
    images, *counts = subject.totals(len(true), *map(sum, right.values()))
    setting = {
        "attack": _name(attack),
        "steps": steps_for(attack, steps),
        "losses": "its own" if has_own_loss(configured) else "+".join(losses),
        "seed": subject.seed,
    }
    return [
        accuracy(
            *("sweep", correct, images, {"norm": threat.norm, "eps": threat.eps, **setting}),
            right=right[threat],
            answers=single[threat],
        )
        for threat, correct in zip(single, counts, strict=True)
    ]


def _after(
    subject: Subject,
    pixels: Tensor,
    labels: Tensor,
    answers: Tensor,
    attack: Attack,
    threat: ThreatModel,
    *,
    losses: Sequence[LossName],
    size: int,
) -> Tensor:
    """Attack with each of the losses in turn; return the answers (N,)."""
    generator = subject.generator()
    for loss in losses if threat.eps > 0 else ():
        answers = subject.answered(pixels, labels, answers, attack, threat, loss=loss, generator=generator, size=size)
    return answers


def _swept(subject: Subject, norms: Sequence[NormLike] | None) -> list[NormLike]:
    """Return the norms, by default the training norm and then every other one."""
    trained = subject.threat.norm
    others = [norm for norm in plugins.names("norms") if norm != trained]
    return list(dict.fromkeys(map(canonical, norms or [trained, *others])))


def _threats(subject: Subject, norm: NormLike, eps: Sequence[float] | None) -> list[ThreatModel]:
    if eps is None:
        radius = subject.adversary(norm).eps or default_eps(norm, subject.shape)
        multiples = MULTIPLES.get(norm, MULTIPLES["l2"]) if isinstance(norm, str) else MULTIPLES["l2"]
        eps = radii(norm, radius, multiples)
    threats: list[ThreatModel] = []
    for radius in sorted(eps):
        if not threats or not math.isclose(radius, threats[-1].eps, rel_tol=SAME):
            threats.append(ThreatModel(norm, radius))
    return threats


def _name(attack: object) -> str:
    if isinstance(attack, str):
        return attack
    if isinstance(attack, partial):
        settings = ", ".join(f"{key}={value}" for key, value in attack.keywords.items())
        return f"{_name(attack.func)}({settings})"
    return str(getattr(attack, "__name__", type(attack).__name__))
