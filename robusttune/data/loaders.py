"""Checks of a user's loader, and DataLoaders like it over other images."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import TypeGuard

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, Sampler, SequentialSampler


def check_loader(loader: object, name: str = "loader", *, passes: int = 1) -> None:
    """Raise a ValueError unless the loader yields batches, `passes` times over."""
    if isinstance(loader, Dataset) and not hasattr(loader, "__iter__"):
        raise ValueError(
            f"the {name} is a {type(loader).__name__}, a data set of single images, but batches are needed: wrap it in a "
            "DataLoader, such as torch.utils.data.DataLoader(data, batch_size=128, shuffle=True)"
        )
    sequence = isinstance(loader, Iterable) or hasattr(loader, "__getitem__")
    if not sequence or isinstance(loader, str | Mapping | Tensor):
        raise ValueError(
            f"the {name} is a {type(loader).__name__}, but something that yields batches is needed: pass a DataLoader, "
            "or a list of (images, labels)"
        )
    if passes > 1 and is_exhaustible(loader):
        raise ValueError(
            f"the {name} is an iterator ({type(loader).__name__}), which can be gone through only once, but it is needed "
            f"{passes} times: pass the DataLoader itself, or a list of batches"
        )


def is_exhaustible(loader: object) -> bool:
    """Return True for an iterator, such as a generator: it can be gone through only once."""
    # Asking for iter(loader) would start a DataLoader's workers and draw from the global random state.
    return isinstance(loader, Iterator)


def is_plain(loader: object) -> TypeGuard[DataLoader[object]]:
    """Return True if `rebuilt` can split or share out the loader's images.

    It is a DataLoader, not of a subclass, over a map-style data set of known length, in batches, with torch's sequential
    or random sampler.
    """
    return (
        type(loader) is DataLoader
        and loader.batch_size is not None
        and isinstance(loader.sampler, RandomSampler | SequentialSampler)
        and isinstance(loader.dataset, Sized)
        and not isinstance(loader.dataset, IterableDataset)
    )


def rebuilt(
    loader: DataLoader[object],
    *,
    dataset: Dataset[object] | None = None,
    sampler: Sampler[int] | None = None,
    shuffle: bool = False,
) -> DataLoader[object]:
    """Build a DataLoader with the batch size and the workers' settings of another one.

    The loader's `generator` is used with `shuffle` alone. With neither `shuffle` nor a sampler, the images come in the
    data set's order and none are dropped.

    Args:
        dataset: its images; None for those of the loader.
        sampler: the order of the images; None for one of torch's own, as `shuffle` says.
    """
    return DataLoader(
        loader.dataset if dataset is None else dataset,
        batch_size=loader.batch_size or getattr(loader.batch_sampler, "batch_size", None) or 1,
        shuffle=shuffle,
        sampler=sampler,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        drop_last=loader.drop_last and (shuffle or sampler is not None),
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator if shuffle else None,
        persistent_workers=loader.persistent_workers,
    )
