"""Accuracy under the strongest attacks of this library, near AutoAttack in a fraction of its time."""

from functools import partial

import torch

from robusttune import plugins
from robusttune.evaluations import LossName, Passes, Record, Subject, accuracy, attack_passes, attacks_at, hits, takes
from robusttune.norms import NormLike
from robusttune.threat import ThreatModel

__all__ = ["strong"]

UNTARGETED: tuple[LossName, ...] = ("cross_entropy", "margin")


def _passes(
    subject: Subject, *, norm: NormLike | None, eps: float | None, steps: int, targets: int, target_steps: int
) -> Passes:
    threat, count = subject.adversary(norm, eps), min(targets, subject.classes - 1)
    untargeted, targeted = (
        attack_passes(subject, plugins.configured("attacks", "apgd", steps=each), threat)
        for each in (steps, target_steps)
    )
    return Passes(1).plus(untargeted, len(UNTARGETED)).plus(targeted, count)


def _attacked(subject: Subject, *, norm: NormLike | None, eps: float | None) -> list[ThreatModel]:
    return [subject.adversary(norm, eps)]


@attacks_at(_attacked)
@takes(_passes)
def strong(
    subject: Subject,
    *,
    norm: NormLike | None = None,
    eps: float | None = None,
    steps: int = 100,
    targets: int = 9,
    target_steps: int = 50,
) -> list[Record]:
    """Measure the accuracy under APGD on the cross-entropy, then on the margin, then toward the likeliest wrong classes.

    Each attack gets only the images that have withstood those before it, again in full batches. An image is robust if it
    withstands all attacks.

    Args:
        subject: the model and its images.
        norm, eps: norm and radius of the adversary; by default those that the model was trained against (for another norm,
            its usual radius).
        steps: the number of steps of the first two attacks.
        targets: the number of wrong classes to attack toward; the likeliest ones on the clean image.
        target_steps: the number of steps of each targeted attack.

    Source: Croce and Hein, arXiv:2003.01690; the targeted loss is the plain difference of two logits.
    """
    threat = subject.adversary(norm, eps)
    count = min(targets, subject.classes - 1)
    untargeted = plugins.configured("attacks", "apgd", steps=steps)
    targeted = plugins.configured("attacks", "apgd", steps=target_steps)
    after: dict[str, list[int]] = {"cross_entropy": [], "margin": [], "targeted": []}
    true: list[int] = []
    for pixels, labels, size in subject.windows():
        logits = subject.answers(pixels, size)
        generator, answers = subject.generator(), logits.argmax(1)
        true += labels.tolist()
        answered = partial(subject.answered, pixels, labels, threat=threat, generator=generator, size=size)
        for loss in UNTARGETED:
            answers = answered(answers, untargeted, loss=loss)
            after[loss] += answers.tolist()
        # (N,count), the likeliest wrong classes first
        wrong = logits.scatter(1, labels[:, None], -torch.inf).topk(count, dim=1).indices
        for number in range(count):
            answers = answered(answers, targeted, loss=wrong[:, number])
        after["targeted"] += answers.tolist()
    setting = {"norm": threat.norm, "eps": threat.eps, "seed": subject.seed}
    names = {
        "cross_entropy": f"apgd on cross-entropy, {steps} steps",
        "margin": f"apgd on cross-entropy and margin, {steps} steps each",
        "targeted": f"both, and apgd toward {count} classes, {target_steps} steps",
    }
    right = {name: hits(answers_to, true) for name, answers_to in after.items()}
    images, *correct = subject.totals(len(true), *map(sum, right.values()))
    return [
        accuracy(
            *("strong", number, images, {**setting, "attack": names[name]}), right=right[name], answers=after[name]
        )
        for name, number in zip(after, correct, strict=True)
    ]
