"""Peak memory of a piece of work, and free memory.

On an accelerator, torch's allocator knows the peak. On the CPU, the C library's allocator does not, and it needs more than
the tensors that are alive: freed blocks that nothing fits into stay with the process, and so does what operations allocate
inside. So there, the growth of the process's resident memory is read after each operation, where Linux and glibc allow it.
"""

import ctypes
import os
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from robusttune.run.files import is_dense

MEASURED = "peak of what the device had allocated"
GROWTH = (
    "tensors alive at once, and what the allocator adds; the memory of the interpreter and of libraries is not counted"
)
COUNTED = "tensors alive at once; memory of the interpreter and inside single operations is not counted"
MEMINFO, STATM = "/proc/meminfo", "/proc/self/statm"


class Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors created inside this context that are alive at once.

    Args:
        after: called after each operation.

    Attributes:
        peak: the largest sum so far.
    """

    def __init__(self, after: Callable[[], None] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now, self.peak, self.after = 0, 0, after
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        """Run the operation, and count the storages of its results."""
        inputs = {_key(leaf) for leaf in tree_leaves((arguments, keywords)) if isinstance(leaf, Tensor)}
        results = function(*arguments, **(keywords or {}))
        for leaf in tree_leaves(results):
            if isinstance(leaf, Tensor) and _key(leaf) not in inputs:
                self._count(leaf)
        if self.after is not None:
            self.after()
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


class Peak(NamedTuple):
    """The peak memory in bytes that a piece of work adds: of the tensors alive at once, and with what the allocator adds."""

    tensors: int
    whole: int


def peak_of(work: Callable[[], object], device: torch.device) -> Peak:
    """Measure the peak memory that `work` adds to what is allocated already."""
    module: Any = getattr(torch, device.type, None)
    if device.type != "cpu" and hasattr(module, "max_memory_allocated"):
        before = module.memory_allocated(device)
        module.reset_peak_memory_stats(device)
        work()
        added = int(module.max_memory_allocated(device) - before)
        return Peak(added, added)
    with _growth() as growth, Alive(growth.read) as alive:
        work()
    return Peak(alive.peak, max(alive.peak, growth.peak))


def counted_on(device: torch.device) -> str:
    """Say in words which memory `peak_of` counts on this device."""
    if device.type != "cpu":
        return MEASURED
    return COUNTED if _trim() is None else GROWTH


class _Growth:
    """The largest growth of the process's resident memory, in bytes; 0 if it cannot be read."""

    def __init__(self, file: int | None) -> None:
        self.file, self.peak, self.start = file, 0, 0
        self.start = self._resident()

    def read(self) -> None:
        """Read the present resident memory."""
        self.peak = max(self.peak, self._resident() - self.start)

    def _resident(self) -> int:
        if self.file is None:
            return 0
        return int(os.pread(self.file, 100, 0).split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def _growth() -> Iterator[_Growth]:
    """Measure growth inside this context, beginning without what earlier work has freed and the process has kept."""
    trim = _trim()
    if trim is None:
        yield _Growth(None)
        return
    trim(0)
    file = os.open(STATM, os.O_RDONLY)
    try:
        yield _Growth(file)
    finally:
        os.close(file)
        trim(0)


def _trim() -> Callable[[int], int] | None:
    """Return glibc's function that returns freed memory to the system; None if growth cannot be measured."""
    if sys.platform != "linux" or not os.path.exists(STATM):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def bytes_of(tensors: Iterable[Any]) -> int:
    """Return the bytes of all dense tensors among these; shared memory counts once."""
    sizes = {_key(leaf): leaf.untyped_storage().nbytes() for leaf in tensors if is_dense(leaf)}
    return sum(sizes.values())


def free_bytes(device: torch.device) -> int | None:
    """Return the free memory in bytes for tensors of this device; None if it is not known.

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
