"""Accuracy and loss of the pretext heads."""

import torch
from torch.nn import functional as F

from robusttune.evaluations import Passes, Record, Subject, accuracy, checked_by, takes

__all__ = ["pretext"]


def _check(subject: Subject) -> None:
    if subject.heads is None:
        raise ValueError("pretext needs heads: pass heads=, the folder of the run that trained them")


def _passes(subject: Subject) -> Passes:
    return Passes(0 if subject.heads is None else len(subject.heads.tasks))


@checked_by(_check)
@takes(_passes)
def pretext(subject: Subject) -> list[Record]:
    """Measure each pretext head's accuracy and loss on one view of each image, beside the accuracy of guessing.

    Raises:
        ValueError: there are no heads.
    """
    _check(subject)
    assert subject.heads is not None
    generator = torch.Generator().manual_seed(subject.seed)
    right: dict[str, list[bool]] = {}
    losses: dict[str, float] = {}
    guess: dict[str, float] = {}
    for pixels, _ in subject.batches():
        for name in subject.heads.tasks:
            part = subject.heads.whole(name, pixels, generator)
            with torch.no_grad():
                answers = subject.heads.answers(part, subject.features(part.view.of(pixels)))
            targets = part.view.targets
            right.setdefault(name, []).extend((answers.argmax(1) == targets).tolist())
            losses[name] = losses.get(name, 0.0) + float(F.cross_entropy(answers, targets, reduction="sum"))
            guess[name] = 1 / part.view.classes
    records = []
    for name, single in right.items():
        count, images = subject.totals(sum(single), len(single))
        (total,) = subject.sums(losses[name])
        setting = {"task": name, "guess": guess[name], "loss": total / images, "seed": subject.seed}
        records.append(accuracy("pretext", count, images, setting, metric="head accuracy", right=single))
    return records
