"""Functions for several processes, with torch.distributed: ranks, reductions, barriers, DDP."""

import atexit
import inspect
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from robusttune.run.rendezvous import join_group


def together() -> bool:
    """Return True if several processes work together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def join(device: torch.device) -> torch.device:
    """Join the process group that torchrun, accelerate launch or Slurm started, unless the script has done so.

    Returns the device of this process, as `local_device` does.

    Raises:
        ValueError: a process has not started in time.
    """
    started = int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ
    if started and dist.is_available() and not dist.is_initialized():
        join_group(_name_of(_own(device)) if device.type == "cuda" else "")
        # Threads of a group that outlives the interpreter can end the process with SIGABRT.
        atexit.register(_leave)
    return local_device(device)


def _leave() -> None:
    """Destroy the process group, unless the script has done so."""
    if dist.is_initialized():
        dist.destroy_process_group()


def local_device(device: torch.device) -> torch.device:
    """Return the device of this process: on CUDA with several processes by LOCAL_RANK, and made the current one.

    NCCL sends objects, and waits, on the current device, which would be the first in every process. Where a process sees fewer
    devices than there are processes on its machine, processes share them, or each sees its own as the first.
    """
    if device.type != "cuda" or world() == 1:
        return device
    device = _own(device)
    torch.cuda.set_device(device)
    return device


def _own(device: torch.device) -> torch.device:
    """Return the CUDA device that this process takes instead of the first one, which is every process's default."""
    if device.index not in (None, 0):
        return device
    number = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))
    return torch.device("cuda", number % max(1, torch.cuda.device_count()))


def _name_of(device: torch.device) -> str:
    """Name a CUDA device among those of all machines, by the PCI address, as NCCL does, or by what torch knows."""
    properties: object = torch.cuda.get_device_properties(device)
    address = [getattr(properties, f"pci_{part}_id", None) for part in ("domain", "bus", "device")]
    if None in address:
        return f"{socket.gethostname()} {getattr(properties, 'uuid', device.index)}"
    return f"{socket.gethostname()} {':'.join(map(str, address))}"


def summed(values: Iterable[float], device: torch.device) -> list[float]:
    """Sum each value over the processes; every process gets the sums."""
    if not together():
        return [float(value) for value in values]
    total = torch.tensor(list(values), dtype=torch.float64, device=_place_of_numbers(device))
    dist.all_reduce(total)
    return [float(value) for value in total.tolist()]


def gathered(value: object) -> list[Any]:
    """Gather a value of each process, ordered by rank, in every process."""
    if not together():
        return [value]
    values: list[object] = [value] * world()
    dist.all_gather_object(values, value)
    return values


def agreed(value: float, device: torch.device) -> float:
    """Broadcast the first process's value; every process gets it."""
    if not together():
        return float(value)
    shared = torch.tensor([value], dtype=torch.float64, device=_place_of_numbers(device))
    dist.broadcast(shared, 0)
    return float(shared)


def _place_of_numbers(device: torch.device) -> torch.device:
    """Return the CPU, where numbers are exchanged without a copy, unless the process group takes tensors of the device alone."""
    backends = str(dist.get_backend_config()).split(",")
    return torch.device("cpu") if any(each.startswith("cpu:") for each in backends) else device


@torch.no_grad()
def average(tensors: Iterable[Tensor]) -> None:
    """Replace each dense floating-point tensor of two bytes or more by its mean over the processes, in place."""
    if together():
        for tensor in tensors:
            if tensor.is_floating_point() and tensor.layout == torch.strided and tensor.dtype.itemsize > 1:
                dist.all_reduce(tensor)
                tensor /= dist.get_world_size()


def barrier() -> None:
    """Wait until every process has called this."""
    if together():
        dist.barrier()


def replicated(robust_loss: nn.Module) -> nn.Module:
    """Wrap the module in DistributedDataParallel, which averages gradients; return it unwrapped for one process alone."""
    if not together():
        return robust_loss
    # Buffers are not synchronised: they must not change before a step's second forward; an epoch's end averages them.
    wrapped: Any = nn.parallel.DistributedDataParallel
    names = inspect.signature(wrapped).parameters  # newer versions of torch have renamed the argument
    word = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
    replica: nn.Module = wrapped(robust_loss, **{word: False})
    return replica


@contextmanager
def unsynchronised(module: nn.Module, wanted: bool) -> Iterator[None]:
    """Leave gradients unsynchronised inside this context if `wanted`: for all but the last of the accumulated batches."""
    if wanted and isinstance(module, nn.parallel.DistributedDataParallel):
        with module.no_sync():
            yield
    else:
        yield
