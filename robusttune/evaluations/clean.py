"""Accuracy on the images as they are."""

from robusttune.records import Record, accuracy
from robusttune.subject import Subject

__all__ = ["clean"]


def clean(subject: Subject) -> list[Record]:
    """The accuracy on unchanged images."""
    correct = images = 0
    for pixels, labels in subject.batches():
        correct += int((subject.predicted(pixels) == labels).sum())
        images += len(labels)
    correct, images = subject.totals(correct, images)
    return [accuracy("clean", correct, images)]
