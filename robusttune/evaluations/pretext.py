"""Accuracy and loss of the pretext heads."""

import math
from collections import Counter
from fractions import Fraction

import torch
from torch.nn import functional as F

from robusttune.evaluations import Passes, Record, Subject, accuracy, checked_by, takes
from robusttune.measuring.subject import NotFinite
from robusttune.run import distributed

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

    Images that are not square are turned by half alone, so that guessing is right more often; "guess" is the mean over all images.

    Raises:
        ValueError: there are no heads.
        NotFinite: a head's answers are not finite.
    """
    _check(subject)
    assert subject.heads is not None
    generator = torch.Generator().manual_seed(subject.seed)
    # Of every head, also in a process without images, as the others wait for it.
    right: dict[str, list[bool]] = {name: [] for name in subject.heads.tasks}
    losses = dict.fromkeys(right, 0.0)
    views = {name: Counter[int]() for name in right}  # by the number of classes to guess among
    for pixels, _ in subject.batches():
        for name in right:
            part = subject.heads.whole(name, pixels, generator)
            with torch.no_grad():
                answers = subject.heads.answers(part, subject.features(part.view.of(pixels)))
            targets = part.view.targets
            right[name].extend((answers.argmax(1) == targets).tolist())
            losses[name] += float(F.cross_entropy(answers, targets, reduction="sum"))
            views[name][part.view.classes] += len(pixels)
    records = []
    for name, single in right.items():
        count, images = subject.totals(sum(single), len(single))
        (total,) = subject.sums(losses[name])
        if not math.isfinite(total):
            raise NotFinite(f"the answers of the head for {name} hold NaN or infinite values: look for broken weights")
        found = sum(distributed.gathered(views[name]), Counter[int]())
        guess = float(sum(Fraction(number, classes) for classes, number in found.items()) / images)
        setting = {"task": name, "guess": guess, "loss": total / images, "seed": subject.seed}
        records.append(accuracy("pretext", count, images, setting, metric="head accuracy", right=single))
    return records
