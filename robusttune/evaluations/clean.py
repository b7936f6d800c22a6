"""Accuracy on the images as they are."""

import torch

from robusttune.evaluations import Record, Subject, accuracy, balanced

__all__ = ["clean"]


def clean(subject: Subject) -> list[Record]:
    """The accuracy on unchanged images; the mean of the classes' own accuracies; and the smallest of them."""
    seen, right = torch.zeros(2, subject.classes, dtype=torch.long, device=subject.device)
    single: list[bool] = []
    for pixels, labels in subject.batches():
        hits = subject.predicted(pixels) == labels
        seen += torch.bincount(labels, minlength=subject.classes)
        right += torch.bincount(labels[hits], minlength=subject.classes)
        single += hits.tolist()
    images, correct = subject.totals(*seen.tolist()), subject.totals(*right.tolist())
    there = [number for number, count in enumerate(images) if count]
    records = [accuracy("clean", sum(correct), sum(images), right=single)]
    if len(there) > 1:
        known = _told_missing(subject, there)
        worst = min(there, key=lambda number: correct[number] / images[number])
        records.append(balanced("clean", [(correct[number], images[number]) for number in there], known))
        record = accuracy("clean", correct[worst], images[worst], {"class": worst}, metric="worst-class accuracy")
        records.append(record)
    return records


def _told_missing(subject: Subject, there: list[int]) -> dict[str, str]:
    """Say which classes have no images; what their mean then depends on."""
    missing = sorted(set(range(subject.classes)) - set(there))
    if not missing:
        return {}
    named = ", ".join(map(str, missing[:5])) + ", …" * (len(missing) > 5)
    what = f"no images of {len(missing)} of {subject.classes} classes ({named})"
    subject.tell(f"{what}: balanced and worst-class accuracy are of the others")
    return {"classes": f"{len(there)} of {subject.classes}"}
