"""Shares of a loader's batches, one for each of several processes."""

from collections.abc import Iterable, Iterator
from typing import TypeVar, cast

from torch.utils.data import DataLoader, DistributedSampler, RandomSampler

from robusttune.data.loaders import is_plain, rebuilt
from robusttune.run.distributed import rank, together, world
from robusttune.types import Loader

Item = TypeVar("Item")

# Names of classes, as timm and accelerate need not be installed.
SHARDING_SAMPLERS = {"DistributedSampler", "OrderedDistributedSampler", "RepeatAugSampler", "BatchSamplerShard"}
SHARDING_LOADERS = {"DataLoaderShard", "DataLoaderDispatcher"}


def sharded(loader: Loader, marked: bool | None, *, seed: int) -> Loader:
    """Return a loader of this process's share of the images.

    A plain DataLoader gets a DistributedSampler. A loader that a DistributedSampler, accelerate or timm has sharded
    already is returned unchanged, and so is every loader of a process that works alone.

    Args:
        marked: the user's `sharded=`. True: the loader yields this process's share already; False: it yields all images
            in every process; None: decided by the loader's class.
        seed: the seed of the order of a loader that shuffles.

    Raises:
        ValueError: `marked` is None, and the loader is neither sharded nor a plain DataLoader.
    """
    if not together() or marked or is_sharded(loader):
        return loader
    if is_plain(loader):
        shuffle = isinstance(loader.sampler, RandomSampler)
        share: DistributedSampler[int] = DistributedSampler(
            loader.dataset, shuffle=shuffle, seed=seed, drop_last=loader.drop_last
        )
        return rebuilt(loader, sampler=share, training=True)
    if marked is None:
        sampler = getattr(loader, "sampler", None)
        kind = type(loader).__name__ + (f" with a {type(sampler).__name__}" if sampler is not None else "")
        raise ValueError(
            f"{world()} processes work together, but the loader is a {kind}, which cannot be sharded: pass a DataLoader "
            "that yields each image once, or sharded=True if each process's loader yields its own share"
        )
    return _EveryNth(loader)


def whole(loader: Loader) -> Loader:
    """Return a loader of all images, each once and in the same order in every process, where several work together.

    It takes the place of a sharded one, whose shares are padded to equal length, and of one that shuffles: random transforms may draw
    more numbers in one process than in another, and then every n-th batch would hold other images in each.
    """
    shuffled = is_plain(loader) and isinstance(loader.sampler, RandomSampler)
    if not together() or not hasattr(loader, "dataset") or not (shuffled or is_sharded(loader)):
        return loader
    return rebuilt(cast("DataLoader[object]", loader))


def own_share(batches: Iterable[Item]) -> Iterable[Item]:
    """Yield every n-th item, where n is the number of processes, beginning at this process's rank."""
    return (batch for number, batch in enumerate(batches) if number % world() == rank())


def is_sharded(loader: Loader) -> bool:
    """Return True if each process's loader yields a share of the images already."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    samplers = (getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    kinds = {type(sampler).__name__ for sampler in samplers}
    return bool(kinds & SHARDING_SAMPLERS) or type(loader).__name__ in SHARDING_LOADERS


def set_epoch(loader: Loader, epoch: int) -> None:
    """Call `set_epoch` of a loader and of its samplers, where they have one: a DistributedSampler shuffles by it."""
    for part in (loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)):
        if part is not None and hasattr(part, "set_epoch"):
            part.set_epoch(epoch)


class _EveryNth:
    """Every n-th batch of a loader, n the number of processes; an incomplete last round is dropped."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader
        self.dataset = getattr(loader, "dataset", None)

    def __iter__(self) -> Iterator[object]:
        batches = []
        for batch in self.loader:
            batches.append(batch)
            if len(batches) == world():
                yield batches[rank()]
                batches = []
