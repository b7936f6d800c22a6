"""Accuracy on unchanged images."""

from dataclasses import replace

import torch

from robusttune.evaluations import Passes, Record, Subject, accuracy, balanced, named, takes
from robusttune.measuring.intervals import smallest

__all__ = ["clean"]


def _passes(subject: Subject) -> Passes:
    return Passes(1)


@takes(_passes)
def clean(subject: Subject) -> list[Record]:
    """Measure accuracy on unchanged images: over all images, the mean over the classes (balanced), and of the worst class.

    The interval of the worst class takes into account that another class may be the worst one in truth.

    Args:
        subject: the model and its images.

    Raises:
        ValueError: there are no images.
    """
    seen, right = torch.zeros(2, subject.classes, dtype=torch.long, device=subject.device)
    single: list[bool] = []
    for pixels, labels in subject.batches():
        hits = subject.predicted(pixels) == labels
        seen += torch.bincount(labels, minlength=subject.classes)
        right += torch.bincount(labels[hits], minlength=subject.classes)
        single += hits.tolist()
    images, correct = subject.totals(*seen.tolist()), subject.totals(*right.tolist())
    present = [number for number, count in enumerate(images) if count]
    records = [accuracy("clean", sum(correct), sum(images), right=single)]
    if len(present) > 1:
        classes = [(correct[number], images[number]) for number in present]
        partial = _partial_setting(subject, present)
        records.append(balanced("clean", classes, partial))
        worst = min(present, key=lambda number: correct[number] / images[number])
        setting = {"class": worst, **partial}
        of_worst = accuracy("clean", correct[worst], images[worst], setting, metric="worst-class accuracy")
        records.append(replace(of_worst, interval=smallest(classes)))
    return records


def _partial_setting(subject: Subject, present: list[int]) -> dict[str, str]:
    """Warn if classes have no images; return the setting that says so."""
    missing = sorted(set(range(subject.classes)) - set(present))
    if not missing:
        return {}
    names = ", ".join(named(label, subject.names) for label in missing[:5]) + ", …" * (len(missing) > 5)
    subject.tell(
        f"no images of {len(missing)} of {subject.classes} classes ({names}): balanced and worst-class accuracy are of "
        "the others"
    )
    return {"classes": f"{len(present)} of {subject.classes}"}
