"""Epochs of a user's loader: its checked batches, of which the first can be read ahead."""

import itertools
import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor

from robusttune.data import sharding
from robusttune.data.batches import (
    check_channels,
    check_classes,
    errors_at,
    first_batch,
    images_of,
    sent,
    unpacked,
    yields_images_alone,
)
from robusttune.data.fingerprint import fingerprint_of
from robusttune.data.loaders import batches_of, images_an_epoch, is_exhaustible, length_of
from robusttune.run.provenance import digest, tensor_bytes
from robusttune.types import Json, Loader

# Images (N,C,H,W), and labels, (N,) or soft (N,K), or None if only images are read: so the caller knows their type.
CheckedBatch: TypeAlias = tuple[Tensor, Any]


class Batches:
    """The checked batches of a user's loader. The first one can be read ahead; it is not lost, even for an iterator.

    Args:
        loader: the user's loader.
        labelled: True if its batches have labels; None to find out from the first batch.

    Attributes:
        count: batches of an epoch, or parts after `cut()`; None if the loader has no length.
        most: images of a part; None for whole batches.
        channels: the number of channels of the first batch's images; None before `first()`.
    """

    def __init__(self, loader: Loader, *, labelled: bool | None = True, name: str = "loader") -> None:
        self.loader, self.labelled, self.name = loader, labelled, name
        self.count = length_of(loader)
        self.channels: int | None = None
        self.most: int | None = None
        self._peeked: CheckedBatch | None = None

    @property
    def rereadable(self) -> bool:
        """True while the first batch is kept; that of an iterator is released when training begins."""
        return self._peeked is not None

    @property
    def peeked(self) -> CheckedBatch:
        """The batch that `first()` read; an iterator's is released when its epoch begins.

        Raises:
            RuntimeError: `first()` was not called, or the batch is released.
        """
        if self._peeked is None:
            raise RuntimeError("no batch is read ahead: call first() before the first epoch")
        return self._peeked

    @property
    def part(self) -> CheckedBatch:
        """The first part of `peeked` to train on: the whole batch, unless batches are cut."""
        return next(self._parts(self.peeked))

    def first(self) -> CheckedBatch:
        """Read the first batch and keep it as `peeked`.

        Raises:
            ValueError: the loader is empty, or the batch does not pass the checks of `unpacked`.
        """
        first = first_batch(self.loader, self.name)
        self.labelled = not yields_images_alone(self.loader, first) if self.labelled is None else self.labelled
        self._peeked = batch = self._checked(first)
        self.channels = batch[0].shape[1]
        return batch

    def cut(self, most: int | None) -> None:
        """From now on, yield batches in parts of nearly equal size, of at most this many images; call `first()` before.

        Images are dealt out in turn, so that each part has its share of those with and of those without labels.
        """
        self.most, size = most, len(self.peeked[0])
        images = images_an_epoch(self.loader, size)
        if images is not None and most is not None and most < size:
            self.count = images // size * math.ceil(size / most) + math.ceil(images % size / most)

    def epoch(
        self, number: int, *, classes: int | None = None, device: torch.device | None = None
    ) -> Iterator[CheckedBatch]:
        """Yield the batches of one epoch, or their parts; the epoch's number, from 0, is named in errors.

        Args:
            classes: the number of classes of the model; labels on the CPU must be below. None does not check it.
            device: to which a batch is copied before it is cut. The rows of a part are not neighbours, so that its own copy
                would pass through memory that is not pinned, and wait for the device. None cuts where the batch is.

        Raises:
            ValueError: a batch does not pass the checks, has another number of channels, or there is none.
        """
        count = 0
        if self._peeked is not None and is_exhaustible(self.loader):
            yield from self._parts(self._peeked, device)
            count, self._peeked = 1, None
        for batch in batches_of(self.loader, self.name):
            count += 1
            with errors_at(f"batch {count} of epoch {number + 1}"):
                checked = self._checked(batch, wait=False)
                check_channels(checked[0], self.channels)
                if classes is not None and checked[1] is not None and checked[1].device.type == "cpu":
                    check_classes(checked[1], classes)  # on an accelerator, that would wait
            yield from self._parts(checked, device)
        if not count:
            raise ValueError(
                f"the {self.name} had no batch in epoch {number + 1}: it must yield its batches again each time"
            )

    def endless(self, least: int = 1, number: int = 0, *, device: torch.device | None = None) -> Iterator[Tensor]:
        """Yield the images of the batches, epoch after epoch, without end.

        Args:
            least: images of a batch; smaller batches are left out. It is 2 before batch norm, as the last batch may hold
                one image alone.
            number: the number of the first epoch; samplers that shuffle by it give another order in each.
            device: as in `epoch`.

        Raises:
            ValueError: as `epoch` does; an epoch without any batch of that size.
        """
        for each in itertools.count(number):
            large = 0
            sharding.set_epoch(self.loader, each)
            for images, _ in self.epoch(each, device=device):
                if len(images) >= least:
                    large += 1
                    yield images
            if not large:
                raise ValueError(
                    f"the batches of the {self.name} hold one image each, which batch norm cannot normalise: use a batch "
                    "size of at least 2"
                )

    def facts(self) -> dict[str, Json]:
        """Return what `run.json` keeps of the data: numbers of images and batches, shape and hash of the first batch, fingerprint."""
        images = length_of(getattr(self.loader, "dataset", None))
        shape, first = None, None
        if self._peeked is not None:
            shape = list(self._peeked[0].shape)
            first = digest(tensor_bytes(tensor) for tensor in self._peeked if tensor is not None)
        known = {"shape": shape, "first": first, "fingerprint": fingerprint_of(self.loader)}
        return {"images": images, "batches": length_of(self.loader), **known}

    def _parts(self, batch: CheckedBatch, device: torch.device | None = None) -> Iterator[CheckedBatch]:
        images, labels = batch
        parts = 1 if self.most is None else math.ceil(len(images) / self.most)
        if parts > 1 and device is not None:
            images, labels = sent(images, device), None if labels is None else sent(labels, device)
        for part in range(parts):
            yield images[part::parts], None if labels is None else labels[part::parts]

    def _checked(self, batch: object, *, wait: bool = True) -> CheckedBatch:
        return unpacked(batch, wait=wait) if self.labelled else (images_of(batch, wait=wait), None)
