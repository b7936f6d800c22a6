"""A loader's share for each of several processes."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader, DistributedSampler, RandomSampler, SequentialSampler

from robusttune.run.distributed import rank, together, world


def sharded(loader: Any, marked: bool | None, *, seed: int) -> Any:
    """A loader of this process's share of the images.

    DataLoaders over a map-style data set are shared out; those that are shared out already, by a DistributedSampler,
    accelerate or timm, are left alone.

    Raises:
        ValueError: a loader of another kind, of which one cannot tell: `sharded=` must say.
    """
    if not together() or marked or is_sharded(loader):
        return loader
    if _is_plain(loader):
        shuffle = isinstance(loader.sampler, RandomSampler)
        sampler: Any = DistributedSampler(loader.dataset, shuffle=shuffle, seed=seed, drop_last=loader.drop_last)
        return DataLoader(
            loader.dataset,
            batch_size=loader.batch_size,
            sampler=sampler,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            drop_last=loader.drop_last,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            persistent_workers=loader.persistent_workers,
        )
    if marked is None:
        raise ValueError(
            f"{world()} processes share the work, but the loader is a {type(loader).__name__}, which cannot be shared "
            "out: pass sharded=True if each process's loader yields its own share, or a DataLoader"
        )
    return _EveryNth(loader)


def whole(loader: Any) -> Any:
    """A loader of all images, each once, where the given one yields a process's padded share; else the given one."""
    if not together() or not is_sharded(loader) or not hasattr(loader, "dataset"):
        return loader
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size or getattr(loader.batch_sampler, "batch_size", None) or 1,
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        persistent_workers=loader.persistent_workers,
    )


def own_share(batches: Iterable[Any]) -> Iterable[Any]:
    """Those batches whose turn it is for this process: all of them, where it is alone."""
    return (batch for number, batch in enumerate(batches) if number % world() == rank())


def is_sharded(loader: Any) -> bool:
    """Whether each process's loader yields its own share already."""
    sampler = getattr(loader, "sampler", None)
    inner = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    known = ("DistributedSampler", "OrderedDistributedSampler", "RepeatAugSampler")
    kinds = {type(each).__name__ for each in (sampler, inner, getattr(loader, "batch_sampler", None)) if each}
    return bool(kinds & {*known, "BatchSamplerShard"}) or type(loader).__name__ in (
        "DataLoaderShard",
        "DataLoaderDispatcher",
    )


def set_epoch(loader: Any, epoch: int) -> None:
    """Tell a loader or its sampler which epoch begins, where it wants to know."""
    for each in (loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)):
        if each is not None and hasattr(each, "set_epoch"):
            each.set_epoch(epoch)


def _is_plain(loader: Any) -> bool:
    return (
        type(loader) is DataLoader
        and loader.batch_size is not None
        and isinstance(loader.sampler, RandomSampler | SequentialSampler)
    )


class _EveryNth:
    """The batches whose turn it is for this process; what is left over at the end is nobody's."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.dataset = getattr(loader, "dataset", None)
        if hasattr(loader, "__len__"):
            self.count = len(loader) // world()

    def __iter__(self) -> Iterator[Any]:
        waiting = []
        for batch in self.loader:
            waiting.append(batch)
            if len(waiting) == world():
                yield waiting[rank()]
                waiting = []
