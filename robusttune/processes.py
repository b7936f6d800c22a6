"""Several processes that train one model: who this one is, and what they agree on."""

import atexit
import inspect
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler, SequentialSampler


def together() -> bool:
    """Whether several processes work together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """The number of this process."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def join(device: torch.device) -> None:
    """Meet the other processes that torchrun, accelerate launch or Slurm started, unless the script has done so."""
    started = int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ
    if started and dist.is_available() and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        # Threads of a group that is still there when the interpreter has gone can end the process with SIGABRT.
        atexit.register(_leave)


def _leave() -> None:
    """Part from the other processes, unless the script has done so."""
    if dist.is_initialized():
        dist.destroy_process_group()


def local_device(device: torch.device) -> torch.device:
    """The accelerator that this process should use, where several processes share a machine."""
    if device.type == "cuda" and world() > 1 and device.index in (None, 0):
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device


def summed(values: Iterable[float], device: torch.device) -> list[float]:
    """Each value, summed over the processes."""
    total = torch.tensor(list(values), dtype=torch.float64, device="cpu" if device.type == "mps" else device)
    if together():
        dist.all_reduce(total)
    return [float(value) for value in total.tolist()]


def gathered(thing: Any) -> list[Any]:
    """The things of all processes, in each of them."""
    if not together():
        return [thing]
    things: list[Any] = [None] * world()
    dist.all_gather_object(things, thing)
    return things


def agreed(value: float, device: torch.device) -> float:
    """The first process's value, in every process."""
    told = torch.tensor([value], dtype=torch.float64, device=device)
    if together():
        dist.broadcast(told, 0)
    return float(told)


@torch.no_grad()
def averaged(tensors: Iterable[Tensor]) -> None:
    """Replace each floating-point tensor by its mean over the processes, in place."""
    if together():
        for tensor in tensors:
            if tensor.is_floating_point():
                dist.all_reduce(tensor)
                tensor /= dist.get_world_size()


def wait() -> None:
    """Go on when every process has come this far."""
    if together():
        dist.barrier()


def replicated(robust_loss: nn.Module) -> nn.Module:
    """The module whose gradients are means over the processes; alone, the module itself."""
    if not together():
        return robust_loss
    # Buffers are not sent: a step's second forward must not find them changed, and they are averaged once an epoch.
    wrapped: Any = nn.parallel.DistributedDataParallel
    names = inspect.signature(wrapped).parameters  # newer versions of torch have another word for it
    word = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
    replica: nn.Module = wrapped(robust_loss, **{word: False})
    return replica


@contextmanager
def unsynchronised(module: nn.Module, wanted: bool) -> Iterator[None]:
    """Leave gradients to this process alone meanwhile, as all but the last of several accumulated batches do."""
    if wanted and isinstance(module, nn.parallel.DistributedDataParallel):
        with module.no_sync():
            yield
    else:
        yield


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
