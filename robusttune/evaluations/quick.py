"""A first look at accuracy and robustness on few images, by one attack at two radii."""

from dataclasses import replace

from robusttune import plugins
from robusttune.attacks import Attack
from robusttune.data.splits import subset_of
from robusttune.evaluations import Passes, Record, Subject, accuracy, attack_passes, hits, takes
from robusttune.norms import NormLike, default_eps, radii
from robusttune.threat import ThreatModel

__all__ = ["quick"]

MULTIPLES = (1.0, 2.0)
STEPS = 20


def _passes(subject: Subject, *, norm: NormLike | None, eps: float | None, images: int) -> Passes:
    attack, threats = _attack(), _threats(subject, norm, eps)
    return Passes(1, images=images).plus(attack_passes(subject, attack, threats[0]), len(threats))


@takes(_passes)
def quick(
    subject: Subject, *, norm: NormLike | None = None, eps: float | None = None, images: int = 128
) -> list[Record]:
    """Measure the accuracy on few images, unchanged and under APGD on the margin at the training radius and at twice as much.

    A first look, not a result: intervals are wide, and a single attack leaves more images right than several do. Reports
    draw no conclusion from it. All settings say "quick".

    Args:
        subject: the model and its images.
        norm, eps: norm and radius of the adversary; by default those that the model was trained against (for another norm,
            its usual radius).
        images: the number of images, drawn with the seed from a plain DataLoader, the first ones of other loaders.

    Raises:
        ValueError: `images` is below 1.
    """
    subject = replace(subject, loader=subset_of(subject.loader, images, subject.seed))
    attack, threats = _attack(), _threats(subject, norm, eps)
    true: list[int] = []
    clean: list[int] = []
    single: dict[ThreatModel, list[int]] = {threat: [] for threat in threats}
    for pixels, labels, size in subject.windows():
        answers = subject.predicted(pixels, size)
        true += labels.tolist()
        clean += answers.tolist()
        for threat in threats:
            answers = subject.answered(
                pixels, labels, answers, attack, threat, loss="margin", generator=subject.generator(), size=size
            )
            single[threat] += answers.tolist()
    right = [hits(each, true) for each in (clean, *single.values())]
    total, *counts = subject.totals(len(true), *map(sum, right))
    setting = {"quick": "a first look", "seed": subject.seed}
    attacked = {"attack": "apgd on the margin", "steps": STEPS, **setting}
    settings = [setting, *({"norm": threat.norm, "eps": threat.eps, **attacked} for threat in threats)]
    columns = zip(counts, settings, right, (clean, *single.values()), strict=True)
    return [accuracy("quick", count, total, each, right=r, answers=a) for count, each, r, a in columns]


def _attack() -> Attack:
    return plugins.configured("attacks", "apgd", steps=STEPS)


def _threats(subject: Subject, norm: NormLike | None, eps: float | None) -> list[ThreatModel]:
    adversary = subject.adversary(norm, eps)
    radius = adversary.eps or default_eps(adversary.norm, subject.shape)
    return [ThreatModel(adversary.norm, each) for each in radii(adversary.norm, radius, MULTIPLES)]
