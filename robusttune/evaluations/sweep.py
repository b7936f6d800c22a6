"""Accuracy under attacks of growing radius."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from robusttune import plugins
from robusttune.attacks import stays_in_ball
from robusttune.measuring.record import Record, accuracy
from robusttune.measuring.subject import Subject
from robusttune.threat import ThreatModel, canonical, default_eps, radii

__all__ = ["sweep"]

MULTIPLES = {"l2": (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0), "linf": (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)}


def sweep(
    subject: Subject,
    *,
    norms: Sequence[Any] | None = None,
    eps: Sequence[float] | None = None,
    attack: Any = "apgd",
    steps: int | None = 50,
    losses: Sequence[str] = ("cross_entropy", "margin"),
) -> list[Record]:
    """The accuracy under attack, for radii from 0 to well past the training radius, in both norms.

    An image counts as robust at a radius when no attack up to that radius changes its class: the balls lie in each
    other, so an image that fell is not attacked again, and accuracy never rises with the radius.

    Args:
        subject: the model and its images.
        norms: those of the adversary; unless given, the training norm first and then every other one.
        eps: radii in pixel units on [0,1], for all norms; multiples of the training radius unless given (of the
            customary radius for a norm that was not trained on).
        attack: by name, or any `(loss_of, images, threat, *, generator) -> images`.
        steps: of the attack; None for its own default.
        losses: what the attack maximises, one after the other: "cross_entropy", "margin".

    Source: Carlini et al., arXiv:1902.06705, sections 5.4 and 5.5.
    """
    found = plugins.find("attacks", attack)
    if not stays_in_ball(found):
        raise ValueError(
            f"{_name(attack)} leaves the ball, so what it finds is no adversarial example: it is for training alone; "
            "evaluate with attack='pgd' or 'apgd'"
        )
    run = plugins.configured("attacks", attack, steps=steps)
    own = subject.threat.norm
    names = (
        list(dict.fromkeys(map(canonical, norms))) if norms else [own, *(n for n in plugins.names("norms") if n != own)]
    )
    threats = [threat for norm in names for threat in _threats(subject, norm, eps)]
    single: dict[ThreatModel, list[bool]] = {threat: [] for threat in threats}
    for pixels, labels, size in subject.windows():
        right = subject.predicted(pixels, size) == labels
        for norm in names:
            alive = right
            for threat in (each for each in threats if each.norm == norm):
                generator = subject.generator()
                for loss in losses if threat.eps > 0 else ():
                    alive = subject.withstood(
                        pixels, labels, alive, run, threat, loss=loss, generator=generator, size=size
                    )
                single[threat] += alive.tolist()
    images, *counts = subject.totals(len(single[threats[0]]), *map(sum, single.values()))
    setting = {"attack": _name(attack), "steps": steps, "losses": "+".join(losses), "seed": subject.seed}
    return [
        accuracy("sweep", correct, images, {"norm": threat.norm, "eps": threat.eps, **setting}, right=single[threat])
        for threat, correct in zip(threats, counts, strict=True)
    ]


def _threats(subject: Subject, norm: Any, eps: Sequence[float] | None) -> list[ThreatModel]:
    if eps is None:
        radius = subject.adversary(norm).eps or default_eps(norm, subject.shape)
        eps = radii(norm, radius, MULTIPLES.get(norm, MULTIPLES["l2"]))
    return [ThreatModel(norm, radius) for radius in sorted(set(eps))]


def _name(attack: Any) -> str:
    if isinstance(attack, str):
        return attack
    if isinstance(attack, partial):
        settings = ", ".join(f"{key}={value}" for key, value in attack.keywords.items())
        return f"{_name(attack.func)}({settings})"
    return getattr(attack, "__name__", type(attack).__name__)
