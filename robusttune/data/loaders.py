"""Checks of a user's loader, and DataLoaders like it over other images."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import TypeGuard, cast
from weakref import WeakSet

from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, Sampler, SequentialSampler

logger = logging.getLogger("robusttune")
_warned_of: WeakSet[object] = WeakSet()


def check_loader(loader: object, name: str = "loader", *, passes: int = 1) -> None:
    """Raise a ValueError unless the loader yields batches, `passes` times over."""
    if isinstance(loader, Dataset) and not hasattr(loader, "__iter__"):
        raise ValueError(
            f"the {name} is a {type(loader).__name__}, a data set of single images, but batches are needed: wrap it in a "
            "DataLoader, such as torch.utils.data.DataLoader(data, batch_size=128, shuffle=True)"
        )
    sequence = isinstance(loader, Iterable) or hasattr(loader, "__getitem__")
    if (
        not sequence
        or isinstance(loader, str | bytes | type | Mapping | Tensor | nn.Module)
        or hasattr(loader, "__array__")
    ):
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
    """Return True for an iterator, such as a generator: it can be iterated only once."""
    # Asking for iter(loader) would start a DataLoader's workers and draw from the global random state.
    return isinstance(loader, Iterator)


def length_of(sized: object) -> int | None:
    """Return the length of a loader, a data set or a sampler; None if it has none, or raises an error instead of saying it.

    A DataLoader of an `IterableDataset` has a `__len__`, which raises where its data set has none.
    """
    try:
        return len(cast(Sized, sized))
    except (TypeError, AttributeError, NotImplementedError):
        return None


def batches_of(loader: Iterable[object], name: str = "loader") -> Iterator[object]:
    """Yield the batches of a loader; log a warning at the end, once for a loader, if their number differs from its length.

    Raises:
        RuntimeError: the connection to a worker process broke, as where the system has killed it.
    """
    workers = getattr(loader, "num_workers", 0)
    count = 0
    try:
        for batch in loader:
            count += 1
            yield batch
    except (ConnectionError, EOFError) as error:
        if not workers:
            raise
        raise RuntimeError(
            f"a worker process of the {name} has died after batch {count}, as where memory, or shared memory in /dev/shm, ran "
            f"out ({type(error).__name__}): use fewer workers, or none (num_workers=0), which shows the error"
        ) from error
    length = length_of(loader)
    # Each worker of an IterableDataset may end with an incomplete batch of its own.
    if length is not None and abs(count - length) > workers and _first_time(loader):
        logger.warning(
            "the %s says that it has %s batches, but yielded %s: schedules and progress follow what it says, and images may be "
            "missing or come twice; look at the __len__ of loader and data set, at StopIteration, and at how workers share an "
            "IterableDataset",
            name,
            f"{length:,}",
            f"{count:,}",
        )


def _first_time(loader: object) -> bool:
    """Return True if no warning about the length of this loader was logged before."""
    try:
        known = loader in _warned_of
        _warned_of.add(loader)
    except TypeError:  # it has no hash or no weak reference, so that it cannot be remembered
        return True
    return not known


def images_an_epoch(loader: object, batch: int) -> int | None:
    """Return the number of images in an epoch of a loader; None if it is not known.

    Args:
        batch: the number of images in one of its batches.
    """
    batches = length_of(loader)
    if batches is None:
        return None
    known = length_of(getattr(loader, "sampler", None)) if getattr(loader, "batch_size", None) else None
    return batches * batch if known is None else min(known, batches * batch)


def is_plain(loader: object) -> TypeGuard[DataLoader[object]]:
    """Return True if `rebuilt` can split or share out the loader's images.

    It is a DataLoader, not of a subclass, over a map-style data set of known length, in batches, with torch's sequential
    or random sampler, which yields each image of the data set once.
    """
    if type(loader) is not DataLoader or loader.batch_size is None or isinstance(loader.dataset, IterableDataset):
        return False
    sampler, images = loader.sampler, length_of(loader.dataset)
    if type(sampler) not in (RandomSampler, SequentialSampler) or images is None:
        return False
    return not getattr(sampler, "replacement", False) and length_of(sampler) == images


def rebuilt(
    loader: DataLoader[object],
    *,
    dataset: Dataset[object] | None = None,
    sampler: Sampler[int] | None = None,
    training: bool = False,
) -> DataLoader[object]:
    """Build a DataLoader with the batch size and the workers' settings of another one.

    Args:
        dataset: its images; None for those of the loader.
        sampler: the order of the images; None for the data set's order.
        training: the images are trained on, so they come as in the loader: in a random order where its sampler is random,
            drawn by the same generator, and without an incomplete batch where it drops one.
    """
    images = loader.dataset if dataset is None else dataset
    if training and sampler is None and isinstance(loader.sampler, RandomSampler):
        sampler = RandomSampler(cast(Sized, images), generator=loader.sampler.generator)
    return DataLoader(
        images,
        batch_size=loader.batch_size or getattr(loader.batch_sampler, "batch_size", None) or 1,
        sampler=sampler,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        drop_last=loader.drop_last and training,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        prefetch_factor=loader.prefetch_factor,
        generator=loader.generator if training else None,
        persistent_workers=loader.persistent_workers,
    )
