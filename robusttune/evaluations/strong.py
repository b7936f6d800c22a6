"""Accuracy under the strongest attacks of this library, near AutoAttack in a fraction of its time."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from robusttune import lookup
from robusttune.records import Record, accuracy
from robusttune.subject import Subject
from robusttune.threat import Attack, ThreatModel, canonical, default_eps

__all__ = ["strong"]


def strong(
    subject: Subject,
    *,
    norm: Any = None,
    eps: float | None = None,
    steps: int = 100,
    targets: int = 9,
    target_steps: int = 50,
) -> list[Record]:
    """The accuracy under APGD on the cross-entropy, then on the margin, then toward each of the likeliest wrong classes.

    Every attack is given only the images that have withstood those before it. An image is robust that withstands all.

    Args:
        subject: the model and its images.
        norm, eps: of the adversary; those that the model was, or should be, trained against unless given.
        steps: of the first two attacks.
        targets: how many wrong classes; the likeliest ones on the clean image.
        target_steps: of each targeted attack.

    Source: Croce and Hein, arXiv:2003.01690; the targeted loss is the plain difference of two logits.
    """
    threat = _threat(subject, norm, eps)
    apgd = lookup.find("attacks", "apgd")
    count = min(targets, subject.classes - 1)
    after: dict[str, list[bool]] = {"cross_entropy": [], "margin": [], "targeted": []}
    for pixels, labels in subject.batches():
        generator, alive = subject.generator(), subject.predicted(pixels) == labels
        for loss in ("cross_entropy", "margin"):
            attack = partial(apgd, steps=steps)
            alive = _withstood(subject, pixels, labels, alive, attack, threat, loss, generator)
            after[loss] += alive.tolist()
        wrong = _likeliest(subject, pixels, labels, count)
        for number in range(count):
            attack = partial(apgd, steps=target_steps)
            alive = _withstood(subject, pixels, labels, alive, attack, threat, wrong[:, number], generator)
        after["targeted"] += alive.tolist()
    setting = {"norm": threat.norm, "eps": threat.eps, "seed": subject.seed}
    names = {
        "cross_entropy": f"apgd on cross-entropy, {steps} steps",
        "margin": f"and on the margin, {steps} steps",
        "targeted": f"and toward {count} classes, {target_steps} steps",
    }
    images, *correct = subject.totals(len(after["targeted"]), *map(sum, after.values()))
    return [
        accuracy("strong", number, images, {**setting, "attack": names[name]}, right=after[name])
        for name, number in zip(after, correct, strict=True)
    ]


def _threat(subject: Subject, norm: Any, eps: float | None) -> ThreatModel:
    if norm is None:
        return subject.threat if eps is None else ThreatModel(subject.threat.norm, eps)
    same = canonical(norm) == subject.threat.norm
    usual = subject.threat.eps if same else default_eps(canonical(norm), subject.shape)
    return ThreatModel(norm, usual if eps is None else eps)


def _likeliest(subject: Subject, pixels: Tensor, labels: Tensor, count: int) -> Tensor:
    """The wrong classes (N,count) with the highest logits."""
    with torch.no_grad():
        logits = subject.logits(pixels)
    return logits.scatter(1, labels[:, None], -torch.inf).topk(count, dim=1).indices


def _withstood(
    subject: Subject,
    pixels: Tensor,
    labels: Tensor,
    alive: Tensor,
    attack: Attack,
    threat: ThreatModel,
    loss: str | Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Which images (N,) were alive and keep their class; `loss` is a name, or the classes (N,) to go for."""
    rows = torch.nonzero(alive).flatten()
    if not len(rows):
        return alive
    goal: Any = loss if isinstance(loss, str) else partial(_toward, loss[rows])
    found = subject.attacked(pixels[rows], labels[rows], attack, threat, loss=goal, generator=generator)
    return alive.index_put((rows,), subject.predicted(found) == labels[rows])


def _toward(targets: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """By how much the logit of the target exceeds that of the label: (N,)."""
    return (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None]))[:, 0]
