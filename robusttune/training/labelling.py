"""A look at a teacher's labels before the run: their accuracy, their spread, and images that do not belong there."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice

import torch
from torch import Tensor

from robusttune.data.batches import images_of, stream
from robusttune.data.loaders import is_plain, length_of, rebuilt
from robusttune.data.pixels import Pixels
from robusttune.measuring.image_statistics import image_statistics
from robusttune.measuring.record import percent
from robusttune.measuring.reference import LEAST, Reference
from robusttune.measuring.tally import image_hashes
from robusttune.model.teacher import Teacher
from robusttune.run import distributed
from robusttune.run.randomness import random_states, restore_random_states
from robusttune.types import Json, Loader

RELIABLE = 0.7  # accuracy of labels below which a run may learn the teacher's mistakes
FIRST = 50  # batches that are looked at of a loader without a length
FOREIGN = 0.01  # share of the labelled images that themselves count as foreign

logger = logging.getLogger("robusttune")


@dataclass(frozen=True)
class Labelling:
    """The labels that a teacher gives to the images of a run.

    Attributes:
        images: without labels.
        labels: the share of them that gets each class's label.
        accuracy: the accuracy of the teacher on images with labels; None if there are none.
        judged: the number of these images.
        held_out: whether they are held out; else the teacher may have learnt from them.
        foreign: the number of images unlike the labelled ones; None if these are too few to say.
    """

    images: int
    labels: Sequence[float]
    accuracy: float | None
    judged: int
    held_out: bool
    foreign: int | None

    def facts(self) -> dict[str, Json]:
        """Return what `run.json` keeps of it."""
        return asdict(self)

    def __str__(self) -> str:
        most = max(range(len(self.labels)), key=lambda label: self.labels[label])
        spread = f"gives each class to {percent(min(self.labels))} to {percent(self.labels[most])} of them"
        if self.accuracy is None:
            return f"{spread}, how often rightly is not known"
        where = "held-out images" if self.held_out else "labelled images, which it may have learnt from"
        return f"right on {percent(self.accuracy)} of {self.judged:,} {where}, {spread}"

    def warn(self, names: Sequence[str] | None) -> None:
        """Log a warning for labels that are often wrong, or of unknown accuracy, and for classes that the teacher never gives."""
        if self.accuracy is not None and self.accuracy < RELIABLE:
            logger.warning(
                "the teacher is right on only %s of %d images with labels, so that the run would learn its mistakes: pass "
                "finetune= to train the model further before, or a better teacher=, or leave out the images without labels",
                percent(self.accuracy),
                self.judged,
            )
        elif self.accuracy is not None and not self.held_out:
            logger.warning(
                "how often the teacher's labels are right is not known, as it may have learnt from the labelled images, and none "
                "of them were held out: pass val_loader= with labelled images that are not trained on"
            )
        never = [label for label, share in enumerate(self.labels) if share == 0]
        if never:
            shown = ", ".join(str(label) if names is None else names[label] for label in never[:8])
            logger.warning(
                "the teacher gives none of the images without labels the class %s%s: either they hold no such images, or the "
                "teacher does not know the class, and the run would unlearn it",
                shown,
                " …" * (len(never) > 8),
            )


class Likeness:
    """The decision whether images are like the labelled ones, by simple statistics of their pixels.

    Args:
        reference: statistics of the labelled images.
        space: the space of the loaders' images.
    """

    def __init__(self, reference: Reference, space: Pixels) -> None:
        self.reference, self.space = reference, space

    def __call__(self, images: Tensor) -> Tensor:
        """Return for each of the images (N,C,H,W), as the loader yields them, whether it is like the labelled ones (N,)."""
        device = self.space.mean.device
        return ~self.reference.strange(_statistics(self.space.pixels(images.to(device))))


def likeness_to(labelled: Loader, space: Pixels, seed: int) -> Likeness | None:
    """Record the statistics of labelled images, each process of its share, for all; None if all are too few to compare with."""
    with _looked_at(labelled) as batches:
        values = [_statistics(space.pixels(images.to(space.mean.device))) for images, _ in stream(batches)]
    joined = _joined(distributed.gathered(_joined(values)))
    if len(next(iter(joined.values()))) < LEAST:
        return None
    return Likeness(Reference(joined, FOREIGN, seed), space)


def labelling_of(
    unlabelled: Loader, teacher: Teacher, *, judge: Loader | None, held_out: bool, likeness: Likeness | None
) -> Labelling:
    """Go through the images without labels once, in each process through its share; all random states are restored.

    Args:
        unlabelled: the images without labels.
        teacher: labels them.
        judge: images with labels, to measure the teacher on: all in each process if they are held out, else its share; None for
            none.
        held_out: whether these are held out from the run; then none of them may be among the images without labels.
        likeness: to the labelled images; None not to count foreign ones.

    Raises:
        ValueError: held-out images are among the images without labels.
    """
    right, judged = 0, 0
    known: set[str] = set()
    if judge is not None:
        with _looked_at(judge) as batches:
            for images, labels in stream(batches):
                truth = labels.argmax(1) if labels.dim() == 2 else labels
                right += int((teacher(images).cpu() == truth.cpu()).sum())
                judged += len(images)
                known |= set(image_hashes(teacher.pixels(images)))
    counts, foreign, twice, total = torch.zeros(teacher.classes), 0, 0, 0
    with _looked_at(unlabelled) as batches:
        # A loader without a length may have no end.
        for batch in batches if length_of(unlabelled) is not None else islice(batches, FIRST):
            images = images_of(batch)
            counts += torch.bincount(teacher(images, remember=True).cpu(), minlength=teacher.classes)
            total += len(images)
            foreign += 0 if likeness is None else int((~likeness(images)).sum())
            twice += sum(image in known for image in image_hashes(teacher.pixels(images))) if held_out else 0
    sums = distributed.summed([*counts.tolist(), total, foreign, twice, right, judged], teacher.device)
    *spread, total, foreign, twice, right, judged = map(round, sums)
    if held_out:  # each process judged all held-out images
        right, judged = right // distributed.world(), judged // distributed.world()
    _refuse(twice)
    return Labelling(
        total,
        [count / total for count in spread],
        right / judged if judged else None,
        judged,
        held_out,
        None if likeness is None else foreign,
    )


def check_apart(unlabelled: Loader, held: Loader, space: Pixels) -> None:
    """Look for held-out images among those without labels, in each process in its share; all random states are restored.

    Args:
        unlabelled: the images without labels, or this process's share of them.
        held: held-out images with labels.
        space: the space of the images of both loaders.

    Raises:
        ValueError: there are some.
    """
    device = space.mean.device
    with _looked_at(held) as batches:
        known = {each for images, _ in stream(batches) for each in image_hashes(space.pixels(images.to(device)))}
    twice = 0
    with _looked_at(unlabelled) as batches:
        for batch in batches:
            twice += sum(image in known for image in image_hashes(space.pixels(images_of(batch).to(device))))
    _refuse(round(distributed.summed([twice], device)[0]))


def _refuse(twice: int) -> None:
    """Raise a ValueError for this number of images without labels that are held out, too."""
    if twice:
        raise ValueError(
            f"{twice} images without labels are also among the held-out images, on which the accuracy would then be no "
            "test: remove them from unlabeled_loader, or pass another val_loader="
        )


def _joined(values: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([each[name] for each in values]) for name in values[0]}


def _statistics(pixels: Tensor) -> dict[str, Tensor]:
    return {name: values.float().cpu() for name, values in image_statistics(pixels).items()}


@contextmanager
def _looked_at(loader: Loader) -> Iterator[Loader]:
    """Yield the loader, in a fixed order if that can be had, and restore all random states afterwards."""
    states = random_states(loader)
    try:
        yield rebuilt(loader) if is_plain(loader) else loader
    finally:
        restore_random_states(states, loader)
