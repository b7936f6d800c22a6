"""Agreement with the answers of a teacher, which is measured instead of accuracy on images without labels."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from robusttune.data.unlabeled import Labelled
from robusttune.measuring.record import AGREEMENT, ANSWERED, Record
from robusttune.model.teacher import SELF, Teacher, TeacherLike, teaching
from robusttune.types import Loader, says

if TYPE_CHECKING:
    from robusttune.measuring.subject import Subject

FACT = "agreement"  # entry in the facts of Records: the teacher whose answers replace labels
OWN = "its own answers"
OF_LABELS = ("published", "baseline")  # settings of `corruptions` that need true labels
KEPT = ("head accuracy",)  # of pretext tasks, which know their answers


def reworded(text: str) -> str:
    """Say agreement where a text says accuracy.

    Example:
        >>> reworded("worst-class accuracy"), reworded("head accuracy"), reworded("mean error")
        ('worst-class agreement', 'head accuracy', 'mean disagreement')
    """
    if text in KEPT:
        return text
    text = re.sub(r"\bmean error\b", "mean disagreement", text)
    return re.sub(r"\baccurac(y|ies)\b", AGREEMENT, text)


def check_without_labels(evaluations: Sequence[tuple[str, object]]) -> None:
    """Raise a ValueError for evaluations that say nothing without true labels."""
    for title, evaluation in evaluations:
        settings = evaluation.keywords if isinstance(evaluation, partial) else {}
        found = next((name for name in OF_LABELS if settings.get(name) is not None), None)
        if found is not None:
            raise ValueError(
                f"{title} with {found}= compares with errors on true labels, but the loader yields images alone: leave "
                f"{found}= out, or pass a loader of images and labels"
            )


@contextmanager
def answers_for(
    images: Tensor | None, teacher: TeacherLike | None, subject: "Subject"
) -> Iterator[tuple[Loader, dict[str, str] | None]]:
    """Yield a loader of images and labels, and the facts of the teacher whose answers replace missing labels (None for labels).

    Args:
        images: the first ones of the subject's loader, if they are alone; None if they have labels.
        teacher: the user's teacher; None and "self" for the subject's model, as it answers to the images as they are.
        subject: the model and its images.

    Raises:
        ValueError: the images have labels, but there is a teacher; or it does not fit.
    """
    if images is None:
        if teacher is not None:
            raise ValueError(
                "teacher= gives labels to images that have none, but the loader yields labels: leave teacher= out to measure "
                "accuracy, or pass a loader that yields images alone to measure agreement with the teacher"
            )
        yield subject.loader, None
        return
    model, space, device = subject.model, subject.pixels, subject.device
    own = teacher is None or teacher is model or says(teacher, SELF)
    taught = (
        nullcontext(Teacher(model, space, device, subject.classes, SELF))
        if own or teacher is None
        else teaching(teacher, model, space, device, subject.classes, subject.names or None, subject.shape)
    )
    with taught as labeller:
        facts = {"name": SELF} if own else labeller.facts(images)
        yield Labelled(subject.loader, labeller), facts


def renamed(records: Sequence[Record]) -> list[Record]:
    """Return Records under the names of what they measure without labels."""
    return [replace(record, metric=reworded(record.metric)) for record in records]


def whose(facts: Mapping[str, Any]) -> str | None:
    """Name the answers that replace labels, by the facts of Records; None if there were labels.

    Example:
        >>> whose({"agreement": {"name": "runs/a", "fingerprint": "1a2b"}})
        'the answers of runs/a (1a2b)'
    """
    teacher = facts.get(FACT)
    if teacher is None:
        return None
    return OWN if teacher["name"] == SELF else f"the answers of {teacher['name']} ({teacher['fingerprint']})"


def caveat(facts: Mapping[str, Any]) -> str | None:
    """Say what agreement is, by the facts of Records; None if there were labels."""
    answers = whose(facts)
    if answers is None:
        return None
    return (
        f"The images have no labels: agreement is how often the model's answer is the same as {answers} for the image as it is. "
        "It is not accuracy, as these answers may be wrong."
    )


def measured_word(runs: Iterable[Sequence[Record]]) -> str:
    """Return "accuracy" or "agreement": what the Records of several models are of.

    Raises:
        ValueError: some are of the one, and some of the other.
    """
    words = {record.metric for records in runs for record in records if record.metric in ANSWERED}
    if len(words) > 1:
        raise ValueError(
            "some of these Records are of images with labels, and hold accuracies, and some are of images alone, and hold "
            "agreement with a model's answers: evaluate all models on the same images"
        )
    return words.pop() if words else "accuracy"
