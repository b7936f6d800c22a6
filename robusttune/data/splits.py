"""Parts of a loader: images held back from training, and subsets to evaluate on."""

from collections.abc import Iterator, Sized
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler, Subset

from robusttune.data.batches import unpacked

LEAST_HELD = 32
HELD_BACK = 0.05  # the share of a plain DataLoader's images that is held back where there is no val_loader


def held_back(loader: Any, share: float, seed: int) -> tuple[Any, Any]:
    """The loader without a random share of its images, and a loader of those; (loader, None) where that cannot be done.

    It can be for a DataLoader over a map-style data set with one of torch's own samplers, if at least 32 images are
    held back.
    """
    if not _is_plain(loader):
        return loader, None
    count = len(loader.dataset)
    held = round(share * count)
    if held < LEAST_HELD:
        return loader, None
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    kept = sorted(order[held:])
    return _like(loader, kept, shuffle=isinstance(loader.sampler, RandomSampler)), _like(loader, sorted(order[:held]))


def subset_of(loader: Any, images: int, seed: int) -> Any:
    """A loader of so many images: drawn at random from a plain DataLoader, the first ones of any other loader."""
    if images < 1:
        raise ValueError(f"subset is {images}, but at least one image is needed")
    if not _is_plain(loader):
        return FirstImages(loader, images)
    count = len(loader.dataset)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:images]
    return _like(loader, sorted(order.tolist()))


class FirstImages:
    """The first images of a loader, in its own batches."""

    def __init__(self, loader: Any, images: int) -> None:
        self.loader = loader
        self.images = images
        self.dataset = getattr(loader, "dataset", None)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        left = self.images
        for batch in self.loader:
            images, labels = unpacked(batch)
            yield images[:left], labels[:left]
            left -= len(images)
            if left <= 0:
                return


def _is_plain(loader: Any) -> bool:
    return (
        type(loader) is DataLoader
        and not isinstance(loader.dataset, IterableDataset)
        and isinstance(loader.dataset, Sized)
        and isinstance(loader.sampler, RandomSampler | SequentialSampler)
        and loader.batch_size is not None
    )


def _like(loader: DataLoader[Any], rows: list[int], *, shuffle: bool = False) -> DataLoader[Any]:
    """A loader of some of the images, which works as the given one does."""
    return DataLoader(
        Subset(loader.dataset, rows),
        batch_size=loader.batch_size,
        shuffle=shuffle,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        drop_last=loader.drop_last and shuffle,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator if shuffle else None,
        persistent_workers=loader.persistent_workers,
    )
