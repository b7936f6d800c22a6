"""How much memory tensors take at once, and how much there is."""

import os
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MEASURED = "most that the device had allocated at once"
COUNTED = "tensors alive at once; what the interpreter and single operations need beside them is not counted"
MEMINFO = "/proc/meminfo"


class Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that are made inside and are alive at once; `most` is the largest sum so far."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now, self.most = 0, 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        """Do what is asked, and count the storages that come out of it."""
        own = {_key(each) for each in tree_leaves((arguments, keywords)) if isinstance(each, Tensor)}
        found = function(*arguments, **(keywords or {}))
        for each in tree_leaves(found):
            if isinstance(each, Tensor) and _key(each) not in own:
                self._count(each)
        return found

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
        self.most = max(self.most, self.now)


def most_bytes(work: Callable[[], Any], device: torch.device) -> int:
    """The most bytes that the tensors made by this work take at once, beyond those that are there already."""
    module: Any = getattr(torch, device.type, None)
    if device.type != "cpu" and hasattr(module, "max_memory_allocated"):
        before = module.memory_allocated(device)
        module.reset_peak_memory_stats(device)
        work()
        return int(module.max_memory_allocated(device) - before)
    with Alive() as alive:
        work()
    return int(alive.most)


def bytes_of(tensors: Iterable[Any]) -> int:
    """The bytes of all tensors among these, shared memory counted once."""
    sizes = {_key(each): each.untyped_storage().nbytes() for each in tensors if isinstance(each, Tensor)}
    return sum(sizes.values())


def free_bytes(device: torch.device) -> int | None:
    """How many bytes more can be had where tensors of this device are kept; None where nothing tells.

    Source: `MemAvailable` of Linux for the CPU; for an accelerator what its driver has left and torch holds unused.
    """
    module: Any = getattr(torch, device.type, None)
    if device.type == "cpu":
        return _available()
    if not hasattr(module, "mem_get_info") or not hasattr(module, "memory_reserved"):
        return None
    free, _ = module.mem_get_info(device)
    return int(free + module.memory_reserved(device) - module.memory_allocated(device))


def _available() -> int | None:
    if os.path.exists(MEMINFO):
        with open(MEMINFO, encoding="utf-8") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    return None


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
