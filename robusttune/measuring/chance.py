"""Test whether a model classifies images better than guessing, before hours are spent on one that was never trained."""

import math
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robusttune.data.batches import hard_labels, stream
from robusttune.data.loaders import is_plain
from robusttune.data.pixels import Pixels
from robusttune.data.splits import subset_of
from robusttune.measuring.intervals import binomial
from robusttune.measuring.records import Records
from robusttune.model.features import predicted_classes
from robusttune.run.randomness import own_randomness
from robusttune.types import Loader

LEVEL = 0.05  # significance level of the test
UNTRAINED = "its classifier seems not to be trained on these classes, or their labels are in another order: "
LEAST, MOST, AT_ONCE = 64, 256, 32  # images to look at, and in one forward


class Guess(NamedTuple):
    """Counts of correctly classified images: by a model (`right`), and by guessing the most frequent class (`frequent`)."""

    right: int
    images: int
    frequent: int

    def better(self, right: int | None = None) -> bool:
        """Return True if the model, or one with this many right, is better than guessing, by an exact binomial test."""
        count = self.right if right is None else right
        return at_least(count, self.images, self.frequent / self.images) <= LEVEL

    def __bool__(self) -> bool:
        """Return True if the model is not better than guessing.

        It is False, too, if the images cannot show a difference: if even a model with half of the errors of guessing would
        not pass the test, because there are few images, or most are of one class.
        """
        halfway = self.frequent + (self.images - self.frequent) // 2
        return self.images > 0 and not self.better() and self.better(halfway)

    def __str__(self) -> str:
        return (
            f"the model gets {self.right} of {self.images} images right, which is no more than guessing "
            f"({self.frequent} are of the most frequent class)"
        )


def at_least(right: int, images: int, share: float) -> float:
    """Return the binomial probability of at least this many hits out of `images` draws, each of which hits with this share.

    Example:
        >>> at_least(2, 2, 0.5), at_least(0, 7, 0.1), round(at_least(9, 64, 1 / 8), 3)
        (0.25, 1.0, 0.407)
    """
    if right <= 0 or share >= 1:
        return 1.0
    return min(1.0, math.fsum(binomial(hits, images, share) for hits in range(right, images + 1)))


def guess_of(predicted: Tensor, labels: Tensor) -> Guess:
    """Count the classes (N,) that a model predicts correctly, and the most frequent one."""
    frequent = int(torch.unique(labels, return_counts=True)[1].max()) if len(labels) else 0
    return Guess(int((predicted == labels).sum()), len(labels), frequent)


def first_guess(model: nn.Module, space: Pixels, images: Tensor, labels: Tensor, loader: Loader, seed: int) -> Guess:
    """Classify the first images of a loader; neither the model nor any random state is changed.

    Args:
        model: on its device; it works in eval mode.
        space: the maps from the loader's images to the model's input, on that device.
        images, labels: the first batch, (N,C,H,W) and (N,) or soft (N,K); at most 256 images are used.
        loader: the loader of these images; where the batch is small and the loader is a plain DataLoader, 256 of its images are drawn.
        seed: the seed of that draw.
    """
    with own_randomness(seed):
        batches = [(images[:MOST], labels[:MOST])]
        if len(images) < LEAST and is_plain(loader):
            batches = list(stream(subset_of(loader, MOST, seed)))
        pairs = [
            (predicted_classes(model, space, part), targets)
            for images, labels in batches
            for part, targets in _parts(images, hard_labels(labels).cpu())
        ]
    predicted, targets = (torch.cat(column) for column in zip(*pairs, strict=True))
    return guess_of(predicted, targets)


def _parts(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a few images at once, and their labels."""
    for start in range(0, len(images), AT_ONCE):
        yield images[start : start + AT_ONCE], labels[start : start + AT_ONCE]


def doubt_in(records: Records) -> str | None:
    """Say why an evaluation's accuracies may mislead: a single class among the images, or a model that may as well guess."""
    classes = Counter(records.labels)
    images = len(records.labels)
    if len(classes) == 1 and images >= LEAST:
        return (
            f"all {images} images measured have label {records.labels[0]}, so the figures are of this class alone: if the loader "
            "gives images sorted by class, shuffle them, or measure all of them"
        )
    for record in records:
        if (record.evaluation, record.metric) == ("clean", "accuracy") and images == record.images:
            guess = Guess(round(record.value * images), images, max(classes.values(), default=0))
            return f"{guess}: {UNTRAINED}load trained weights, or look at the labels" if guess else None
    return None
