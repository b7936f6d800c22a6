"""Images without labels, labelled by a teacher as they are loaded: alone, or mixed with labelled images."""

import math
from collections.abc import Callable, Iterator
from typing import TypeAlias, cast

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch.utils.data import ConcatDataset, Dataset

from robusttune.data import sharding
from robusttune.data.batches import check_classes, errors_at, images_of, unpacked
from robusttune.data.loaders import images_an_epoch
from robusttune.run.randomness import own_randomness
from robusttune.types import Loader

Labeller: TypeAlias = Callable[[Tensor], Tensor]  # images (N,C,H,W) as they are loaded -> labels (N,)


class Labelled:
    """The batches of a loader of images alone, each with the teacher's labels.

    Args:
        loader: yields images (N,C,H,W), alone or as the first of a tuple or in a dict; labels are ignored.
        label: the teacher.
    """

    def __init__(self, loader: Loader, label: Labeller) -> None:
        self.loaders, self.label = (loader,), label
        self.dataset = getattr(loader, "dataset", None)
        self.num_workers = getattr(loader, "num_workers", 0)

    def __len__(self) -> int:
        return len(self.loaders[0])  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.loaders[0]:
            images = images_of(batch, wait=False)
            yield images, self.label(images)

    def set_epoch(self, epoch: int) -> None:
        """Pass the number of the epoch on to the loader's samplers."""
        sharding.set_epoch(self.loaders[0], epoch)


class Mixture:
    """Batches of labelled and of unlabelled images, in a fixed proportion; the teacher labels the latter.

    An epoch has as many images as both loaders together. By default each of them occurs once; where `share` asks for
    another proportion, the images of one kind are repeated. In each batch the labelled images come first.

    Args:
        labelled: yields images (N,C,H,W) and labels, (N,) or soft (N,K).
        unlabelled: yields images alone; labels are ignored.
        label: the teacher.
        classes: the number of classes of the model; labels must be below.
        batches: the number of images in the first batch of each loader; that of `labelled` is the size of batches here.
        share: the share of each batch that is unlabelled, between 0 and 1; None for the unlabelled images' share of all.
        keep: images (N,C,H,W) without labels -> which of them (N,) to use; None for all.
        dropped: the number of images in an epoch that `keep` leaves out.

    Raises:
        ValueError: a loader does not say how many batches it has.
    """

    def __init__(
        self,
        labelled: Loader,
        unlabelled: Loader,
        label: Labeller,
        *,
        classes: int,
        batches: tuple[int, int],
        share: float | None = None,
        keep: Callable[[Tensor], Tensor] | None = None,
        dropped: int = 0,
    ) -> None:
        self.loaders, self.label, self.classes = (labelled, unlabelled), label, classes
        known, more = (images_an_epoch(each, size) for each, size in zip(self.loaders, batches, strict=True))
        if known is None or more is None:
            name = "loader" if known is None else "unlabeled_loader"
            raise ValueError(
                f"the {name} does not say how many batches it has, so it is not known how many images without labels belong "
                "to one with a label: pass a DataLoader, or a list of batches"
            )
        self.keep, more = keep, more - dropped
        self.batch_size, self.labelled, self.images = batches[0], known, known + more
        self.sampler = range(
            self.images
        )  # its length says how many images an epoch has, as that of a DataLoader's does
        self.share = more / self.images if share is None else share
        self.num_workers = max(getattr(loader, "num_workers", 0) for loader in self.loaders)

    def __len__(self) -> int:
        return math.ceil(self.images / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        seed = int(torch.randint(2**62, ()))
        labelled, unlabelled = _Rows(self._labelled, "loader", seed), _Rows(self._unlabelled, "unlabeled_loader", ~seed)
        for number in range(len(self)):
            begin, end = number * self.batch_size, min((number + 1) * self.batch_size, self.images)
            more = round(end * self.share) - round(begin * self.share)
            yield joined([*labelled.take(end - begin - more), *unlabelled.take(more)])

    def set_epoch(self, epoch: int) -> None:
        """Pass the number of the epoch on to the samplers of both loaders."""
        for loader in self.loaders:
            sharding.set_epoch(loader, epoch)

    def _labelled(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number, batch in enumerate(self.loaders[0], 1):
            with errors_at(f"batch {number}"):
                images, labels = unpacked(batch, wait=False)
                if labels.device.type == "cpu":  # on an accelerator, that would wait
                    check_classes(labels, self.classes)
            yield images, labels

    def _unlabelled(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number, batch in enumerate(self.loaders[1], 1):
            with errors_at(f"batch {number} of unlabeled_loader"):
                images = images_of(batch, wait=False)
            if self.keep is not None:
                images = images[self.keep(images).to(images.device)]
            if len(images):
                yield images, self.label(images)


class AllImages(Mixture):
    """Batches of the images of both loaders alone, for what needs no labels; each image occurs once an epoch.

    Args:
        labelled, unlabelled: each yields images (N,C,H,W), alone or as the first of a tuple or in a dict.
        batches: see `Mixture`.

    Raises:
        ValueError: a loader does not say how many batches it has.
    """

    def __init__(self, labelled: Loader, unlabelled: Loader, *, batches: tuple[int, int]) -> None:
        super().__init__(labelled, unlabelled, _no_labels, classes=0, batches=batches)
        datasets = [getattr(loader, "dataset", None) for loader in self.loaders]
        # Transforms, and what they say of pixels, are found in it.
        self.dataset: ConcatDataset[object] | None = None
        if None not in datasets:
            self.dataset = ConcatDataset(cast("list[Dataset[object]]", datasets))

    def __iter__(self) -> Iterator[Tensor]:  # type: ignore[override]
        for images, _ in super().__iter__():
            yield images

    def _labelled(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number, batch in enumerate(self.loaders[0], 1):
            with errors_at(f"batch {number}"):
                images = images_of(batch, wait=False)
            yield images, _no_labels(images)


def _no_labels(images: Tensor) -> Tensor:
    return torch.zeros(len(images), dtype=torch.long, device=images.device)


class _Rows:
    """The images of a loader with their labels, taken a few at a time, epoch after epoch without end.

    A batch may be read before it is needed in full, so each is read with random numbers of its own: whatever is drawn in
    between, the same batches are read again when a run is resumed.

    Args:
        epoch: returns the batches of one epoch.
        name: the name of the loader, for errors.
        seed: the seed of the random numbers.
    """

    def __init__(self, epoch: Callable[[], Iterator[tuple[Tensor, Tensor]]], name: str, seed: int) -> None:
        self.epoch, self.name, self.seed = epoch, name, seed
        self.batches = self._batches()
        self.rest: tuple[Tensor, Tensor] | None = None

    def take(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """Return the next `count` images and labels, in parts."""
        taken = []
        while count:
            images, labels = self._next() if self.rest is None else self.rest
            taken.append((images[:count], labels[:count]))
            self.rest = (images[count:], labels[count:]) if len(images) > count else None
            count -= len(taken[-1][0])
        return taken

    def _next(self) -> tuple[Tensor, Tensor]:
        self.seed += 1
        with own_randomness(self.seed):
            images, labels = next(self.batches)
        return images.clone(), labels.clone()  # loaders may fill the same memory again

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            batch = None
            for batch in self.epoch():
                yield batch
            if batch is None:
                raise ValueError(f"the {self.name} had no batch: it must yield its batches again each time")


def joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Join images (N,C,H,W) and labels, (N,) or soft (N,K), on the device of the last part, which is the teacher's.

    Raises:
        ValueError: images of several shapes or types.
    """
    first, (last, labels) = parts[0][0], parts[-1]
    for images, _ in parts:
        if (images.shape[1:], images.dtype) != (first.shape[1:], first.dtype):
            raise ValueError(
                f"images of unlabeled_loader have shape {tuple(images.shape[1:])} and type {images.dtype}, but those of the "
                f"loader {tuple(first.shape[1:])} and {first.dtype}: use the same transform in both"
            )
    classes = next((each.shape[1] for _, each in parts if each.dim() == 2), None)
    rows = [each if classes is None or each.dim() == 2 else one_hot(each, classes).float() for _, each in parts]
    return (
        torch.cat([images.to(last.device, non_blocking=True) for images, _ in parts]),
        torch.cat([each.to(labels.device, non_blocking=True) for each in rows]),
    )
