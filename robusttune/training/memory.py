"""Peak memory of tensors, and free memory."""

import os
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MEASURED = "peak of what the device had allocated"
COUNTED = "tensors alive at once; memory of the interpreter and inside single operations is not counted"
MEMINFO = "/proc/meminfo"


class Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors created inside this context that are alive at once; `peak` is the largest sum so far."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now, self.peak = 0, 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        """Run the operation, and count the storages of its results."""
        inputs = {_key(leaf) for leaf in tree_leaves((arguments, keywords)) if isinstance(leaf, Tensor)}
        results = function(*arguments, **(keywords or {}))
        for leaf in tree_leaves(results):
            if isinstance(leaf, Tensor) and _key(leaf) not in inputs:
                self._count(leaf)
        return results

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = _key(tensor), storage.nbytes()
        if key in self._known or not size:
            return

        def gone(_: Any) -> None:
            self.now -= size
            self._known.pop(key, None)

        self._known[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def peak_bytes(work: Callable[[], Any], device: torch.device) -> int:
    """Measure the peak memory in bytes that `work` adds to what is allocated already."""
    module: Any = getattr(torch, device.type, None)
    if device.type != "cpu" and hasattr(module, "max_memory_allocated"):
        before = module.memory_allocated(device)
        module.reset_peak_memory_stats(device)
        work()
        return int(module.max_memory_allocated(device) - before)
    with Alive() as alive:
        work()
    return int(alive.peak)


def bytes_of(tensors: Iterable[Any]) -> int:
    """Sum the bytes of all tensors among these; shared memory counts once."""
    sizes = {_key(leaf): leaf.untyped_storage().nbytes() for leaf in tensors if _is_dense(leaf)}
    return sum(sizes.values())


def _is_dense(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided


def free_bytes(device: torch.device) -> int | None:
    """Return the free memory in bytes for tensors of this device; None where it is not known.

    Source: `MemAvailable` of Linux for the CPU; for an accelerator its driver's free memory and torch's unused cache.
    """
    module: Any = getattr(torch, device.type, None)
    if device.type == "cpu":
        return _available()
    if not hasattr(module, "mem_get_info") or not hasattr(module, "memory_reserved"):
        return None
    free, _ = module.mem_get_info(device)
    return int(free + module.memory_reserved(device) - module.memory_allocated(device))


def _available() -> int | None:
    if not os.path.exists(MEMINFO):
        return None
    with open(MEMINFO, encoding="utf-8") as file:
        lines = [line for line in file if line.startswith("MemAvailable:")]
    return int(lines[0].split()[1]) * 1024 if lines else None


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
