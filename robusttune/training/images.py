"""The images of a run: those to train on, those to judge epochs by, and the labels that a teacher gives to some."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.utils.data import SequentialSampler

from robusttune.data import sharding
from robusttune.data.batches import are_images_alone, first_batch
from robusttune.data.class_names import class_names
from robusttune.data.epochs import Batches
from robusttune.data.loaders import is_plain
from robusttune.data.pixels import Pixels, find_pixels
from robusttune.data.splits import HELD_BACK, held_back
from robusttune.data.transforms import find_statistics, same_statistics
from robusttune.data.unlabeled import Labelled, Mixture
from robusttune.measuring.reference import LEAST
from robusttune.model.borrowing import restored
from robusttune.model.devices import device_of, dtype_of
from robusttune.model.probe import first_logits
from robusttune.model.teacher import Teacher, teaching
from robusttune.run import distributed
from robusttune.training.labelling import Labelling, Likeness, labelling_of, likeness_to
from robusttune.training.presets import images_of_a_step
from robusttune.training.settings import RunSettings
from robusttune.types import Loader

logger = logging.getLogger("robusttune")

NOTHING_NEW = "the loader has no labels, so that unlabeled_loader= adds nothing new: join both to one loader"


@dataclass(frozen=True)
class Images:
    """The images of a run.

    Attributes:
        loader: to train on, without the images that are held back.
        held: held-out images with labels; None for none.
        batches: the batches of this process, with the first one read.
        pixels: the space of their pixels.
        unlabeled: more batches, for the pretext losses alone; None for none.
        teacher: labels the images that have no label; None for none.
        labelling: facts about its labels.
    """

    loader: Loader
    held: Loader | None
    batches: Batches
    pixels: Pixels
    unlabeled: Batches | None = None
    teacher: Teacher | None = None
    labelling: Labelling | None = None


@contextmanager
def training_images(model: nn.Module, settings: RunSettings, device: torch.device) -> Iterator[Images]:
    """Hold images back, share the rest out among the processes, read the first batch, and let a teacher label the others.

    Args:
        model: as it is before the run; the teacher may be a copy of it.

    Raises:
        ValueError: images, labels or a teacher that do not fit.
    """
    loaders, seed = settings.loaders, settings.output.seed
    loader = loaders.loader
    held = None if loaders.val_loader is None else sharding.whole(loaders.val_loader)
    if held is None:
        loader, held = held_back(loader, HELD_BACK, seed)
    if held is None and settings.learning.min_clean is not None:
        raise ValueError("min_clean= chooses among epochs by held-out images, but there are none: pass val_loader=")
    batches = _batches_of(loader, settings, labelled=True if loaders.teacher is None else None)
    pixels = find_pixels(batches.peeked[0], loader, **vars(settings.pixels))
    more = loaders.unlabeled_loader
    if more is not None and not batches.labelled:
        raise ValueError(NOTHING_NEW)
    extra = None if more is None else _batches_of(more, settings, labelled=False, name="unlabeled_loader")
    images = Images(loader, held, batches, pixels, extra)
    if loaders.teacher is None or (extra is None and batches.labelled):
        _warn_of_unseen(more, extra, batches)
        yield _cut(images, settings)
        return
    classes, names, shape = _classes_of(model, images), class_names(loaders.loader), batches.peeked[0].shape[1:]
    with teaching(loaders.teacher, model, pixels, device, classes, names, shape) as teacher:
        labelled = _labelled(images, teacher, settings) if extra is None else _mixed(images, teacher, settings)
        yield _cut(labelled, settings)


def _warn_of_unseen(more: Loader | None, extra: Batches | None, batches: Batches) -> None:
    """Log a warning for unlabelled images that no epoch reaches: each epoch begins again at the start of a fixed order.

    Args:
        more: images for the pretext losses alone, as the user passed them.
        extra: this process's share of them; None for none.
        batches: with labels, as many as an epoch has.
    """
    fixed = more is not None and is_plain(more) and isinstance(more.sampler, SequentialSampler)
    if not fixed or extra is None or extra.count is None or batches.count is None or extra.count <= batches.count:
        return
    if distributed.rank() == 0:
        logger.warning(
            "unlabeled_loader does not shuffle, and has %s batches, but the loader %s: each epoch takes the first ones, so that the images "
            "after them are never seen; pass shuffle=True",
            f"{extra.count:,}",
            f"{batches.count:,}",
        )


def _cut(images: Images, settings: RunSettings) -> Images:
    """Cut batches into parts, one for each optimiser step; batches for the pretext losses alone get the same number of parts."""
    first = images.batches.peeked[0]
    most = images_of_a_step(settings, first)
    if most is not None:
        images.batches.cut(most)
        if images.unlabeled is not None:
            parts = math.ceil(len(first) / most)
            images.unlabeled.cut(math.ceil(len(images.unlabeled.peeked[0]) / parts))
    return images


def _labelled(images: Images, teacher: Teacher, settings: RunSettings) -> Images:
    """Let the teacher label all images, those that are held back, too."""
    if settings.loaders.drop_foreign:
        raise ValueError(
            "drop_foreign leaves out images unlike the labelled ones, but no image has a label: leave it out"
        )
    held, loader = images.held, images.batches.loader
    unknown = held is None or are_images_alone(first_batch(held, "val_loader"))
    labelling = _looked_at(loader, images, teacher, settings, judge=None if unknown else held)
    if held is not None and unknown:
        held = Labelled(held, teacher)
    return replace(
        images, batches=_first_read(Labelled(loader, teacher)), held=held, teacher=teacher, labelling=labelling
    )


def _mixed(images: Images, teacher: Teacher, settings: RunSettings) -> Images:
    """Mix the labelled images with those that the teacher labels."""
    labelled, more, loaders = images.batches, images.unlabeled, settings.loaders
    assert more is not None
    check_same_space(images.pixels, settings)
    likeness = likeness_to(labelled.loader, teacher.space, settings.output.seed)
    if loaders.drop_foreign and likeness is None:
        raise ValueError(
            f"drop_foreign compares images with the labelled ones, of which at least {LEAST} are needed: leave it out"
        )

    def mixture(keep: Likeness | None = None, dropped: int = 0) -> Mixture:
        sizes = len(labelled.peeked[0]), len(more.peeked[0])
        return Mixture(
            labelled.loader,
            more.loader,
            teacher,
            classes=teacher.classes,
            batches=sizes,
            share=loaders.unlabeled_share,
            keep=keep,
            dropped=dropped,
        )

    mixture()  # refuses loaders of unknown length before their images are looked at
    judge = labelled.loader if images.held is None else images.held
    labelling = _looked_at(more.loader, images, teacher, settings, judge=judge, likeness=likeness)
    mixed = mixture(likeness, (labelling.foreign or 0) // distributed.world()) if loaders.drop_foreign else mixture()
    return replace(images, batches=_first_read(mixed), unlabeled=None, teacher=teacher, labelling=labelling)


def _looked_at(
    unlabelled: Loader,
    images: Images,
    teacher: Teacher,
    settings: RunSettings,
    *,
    judge: Loader | None,
    likeness: Likeness | None = None,
) -> Labelling:
    """Look at the teacher's labels before the run, and warn of what is wrong with them."""
    held_out = images.held is not None
    labelling = labelling_of(unlabelled, teacher, judge=judge, held_out=held_out, likeness=likeness)
    before = settings.length.pretrain_epochs or settings.length.finetune  # the model is still to be trained by those
    if distributed.rank() == 0 and not before:
        labelling.warn(class_names(settings.loaders.loader))
    return labelling


def _first_read(loader: Loader) -> Batches:
    """Return the batches of a loader, after reading the first one."""
    batches = Batches(loader)
    batches.first()
    return batches


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


def check_same_space(space: Pixels, settings: RunSettings) -> None:
    """Raise a ValueError if the images without labels are in another pixel space than the labelled ones."""
    theirs = find_statistics(settings.loaders.unlabeled_loader)
    if theirs[0] is None or settings.pixels.mean is not None:
        return
    mine = (space.mean.cpu(), space.std.cpu()) if space.known else (None, None)
    if mine[0] is None or not same_statistics(theirs, mine):
        raise ValueError(
            f"unlabeled_loader: its Normalize has mean={theirs[0]} and std={theirs[1]}, but in the loader {space}: use the "
            "same transform in both, apart from its random parts"
        )
