"""The images of a run: those to train on, those to judge epochs by, and the labels that a teacher gives to some."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn

from robusttune.data import sharding
from robusttune.data.batches import are_images_alone, first_batch
from robusttune.data.epochs import Batches
from robusttune.data.pixels import Pixels, find_pixels
from robusttune.data.splits import HELD_BACK, held_back
from robusttune.data.transforms import find_statistics, same_statistics
from robusttune.data.unlabeled import Labelled, Mixture
from robusttune.model.borrowing import restored
from robusttune.model.devices import device_of, dtype_of
from robusttune.model.probe import first_logits
from robusttune.training.settings import RunSettings
from robusttune.training.teacher import Teacher, teaching
from robusttune.types import Loader


@dataclass(frozen=True)
class Images:
    """The images of a run.

    Attributes:
        loader: to train on, without the images that are held back.
        held: held-out images with labels; None for none.
        batches: of this process, with the first one read.
        pixels: the space of their pixels.
        unlabeled: more batches, for the pretext losses alone; None for none.
        teacher: labels the images that have no label; None for none.
    """

    loader: Loader
    held: Loader | None
    batches: Batches
    pixels: Pixels
    unlabeled: Batches | None = None
    teacher: Teacher | None = None


@contextmanager
def training_images(model: nn.Module, settings: RunSettings, device: torch.device) -> Iterator[Images]:
    """Hold images back, share the rest out among the processes, read the first batch, and let a teacher label the others.

    Args:
        model: as it is before the run; the teacher may be a copy of it.

    Raises:
        ValueError: images, labels or a teacher that do not fit.
    """
    loaders, seed = settings.loaders, settings.output.seed
    loader, held = loaders.loader, loaders.val_loader
    if held is None:
        loader, held = held_back(loader, HELD_BACK, seed)
    if held is None and settings.learning.min_clean is not None:
        raise ValueError("min_clean= chooses among epochs by held-out images, but there are none: pass val_loader=")
    batches = _batches_of(loader, settings, labelled=True if loaders.teacher is None else None)
    pixels = find_pixels(batches.peeked[0], loader, **vars(settings.pixels))
    more = loaders.unlabeled_loader
    if more is not None and not batches.labelled:
        raise ValueError(
            "the loader has no labels, so that unlabeled_loader= adds nothing new: join both to one loader"
        )
    extra = None if more is None else _batches_of(more, settings, labelled=False, name="unlabeled_loader")
    images = Images(loader, held, batches, pixels, extra)
    if loaders.teacher is None or (extra is None and batches.labelled):
        yield images
        return
    with teaching(loaders.teacher, model, pixels, device, _classes_of(model, images)) as teacher:
        yield _labelled(images, teacher) if extra is None else _mixed(images, teacher, settings)


def _labelled(images: Images, teacher: Teacher) -> Images:
    """Let the teacher label all images, those that are held back, too."""
    taught = Batches(Labelled(images.batches.loader, teacher))
    taught.first()
    held = images.held
    if held is not None and are_images_alone(first_batch(held, "val_loader")):
        held = Labelled(held, teacher)
    return replace(images, batches=taught, held=held, teacher=teacher)


def _mixed(images: Images, teacher: Teacher, settings: RunSettings) -> Images:
    """Mix the labelled images with those that the teacher labels."""
    batches, more = images.batches, images.unlabeled
    assert more is not None
    _check_space(images, settings)
    sizes = len(batches.peeked[0]), len(more.peeked[0])
    share = settings.loaders.unlabeled_share
    mixture = Mixture(batches.loader, more.loader, teacher, classes=teacher.classes, batches=sizes, share=share)
    taught = Batches(mixture)
    taught.first()
    return replace(images, batches=taught, unlabeled=None, teacher=teacher)


def _batches_of(loader: Loader, settings: RunSettings, *, labelled: bool | None, name: str = "loader") -> Batches:
    """Return the batches of this process's share of a loader, after reading the first one."""
    sharded = sharding.sharded(loader, settings.speed.sharded, seed=settings.output.seed)
    batches = Batches(sharded, labelled=labelled, name=name)
    batches.first()
    return batches


def _classes_of(model: nn.Module, images: Images) -> int:
    """Count the classes of a model by its answer to two images; the model stays as it was."""
    pixels = images.pixels
    inputs = pixels.inputs(pixels.pixels(images.batches.peeked[0][:2].cpu())).to(device_of(model), dtype_of(model))
    with restored(model, weights=False):
        return first_logits(model, inputs).shape[1]


def _check_space(images: Images, settings: RunSettings) -> None:
    """Raise a ValueError where the images without labels are in another pixel space than the labelled ones."""
    assert images.unlabeled is not None
    theirs, space = find_statistics(settings.loaders.unlabeled_loader), images.pixels
    if theirs[0] is None or settings.pixels.mean is not None:
        return
    mine = (space.mean.cpu(), space.std.cpu()) if space.known else (None, None)
    if mine[0] is None or not same_statistics(theirs, mine):
        raise ValueError(
            f"unlabeled_loader: its Normalize has mean={theirs[0]} and std={theirs[1]}, but in the loader {space}: use the "
            "same transform in both, apart from its random parts"
        )
