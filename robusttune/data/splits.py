"""Parts of a loader's images: those held back from training, and subsets to evaluate on."""

from collections.abc import Iterator, Sized
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from robusttune.data.batches import are_images_alone, images_of, unpacked
from robusttune.data.loaders import is_plain, rebuilt
from robusttune.types import Loader

LEAST_HELD = 32  # images; with fewer, none are held back
HELD_BACK = 0.05  # the share of a plain DataLoader's images that is held back where there is no val_loader


def held_back(loader: Loader, share: float, seed: int) -> tuple[Loader, Loader | None]:
    """Split a random share of the images off: return a loader of the others, and one of the share.

    Any loader but a plain DataLoader, one of which fewer than `LEAST_HELD` images would be held back, and one that would
    have no batch left, is returned unchanged, with None.
    """
    if not is_plain(loader):
        return loader, None
    order = _drawn_order(loader, seed)
    held = round(share * len(order))
    if held < LEAST_HELD:
        return loader, None
    rest = rebuilt(loader, dataset=Subset(loader.dataset, sorted(order[held:])), training=True)
    if not len(rest):
        return loader, None
    return rest, rebuilt(loader, dataset=Subset(loader.dataset, sorted(order[:held])))


def parted(loader: Loader, images: int, seed: int) -> tuple[Loader, Loader]:
    """Return a loader of this many images to measure on, drawn at random, and one of the others.

    Any loader but a plain DataLoader, and one without other images, is returned twice.
    """
    if not is_plain(loader):
        return loader, loader
    order = _drawn_order(loader, seed)
    parts = sorted(order[:images]), sorted(order[images:])
    if not all(parts):
        return loader, loader
    first, second = (rebuilt(loader, dataset=Subset(loader.dataset, part)) for part in parts)
    return first, second


def subset_of(loader: Loader, images: int, seed: int) -> Loader:
    """Return a loader of at most this many images: of a plain DataLoader drawn at random, of any other the first.

    Raises:
        ValueError: `images` is below 1.
    """
    if images < 1:
        raise ValueError(f"subset is {images}, but at least one image is needed")
    if not is_plain(loader):
        return FirstImages(loader, images)
    return rebuilt(loader, dataset=Subset(loader.dataset, sorted(_drawn_order(loader, seed)[:images])))


class FirstImages:
    """The first images of a loader, in the loader's batches."""

    def __init__(self, loader: Loader, images: int) -> None:
        self.loader = loader
        self.images = images
        self.dataset = getattr(loader, "dataset", None)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        left = self.images
        for batch in self.loader:
            parts = (images_of(batch),) if are_images_alone(batch) else unpacked(batch)
            yield tuple(part[:left] for part in parts)
            left -= len(parts[0])
            if left <= 0:
                return


def _drawn_order(loader: DataLoader[object], seed: int) -> list[int]:
    """Draw a random order of a plain DataLoader's images."""
    count = len(cast(Sized, loader.dataset))
    order: list[int] = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return order
