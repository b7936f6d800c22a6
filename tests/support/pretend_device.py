"""A pretend accelerator: to torch a device of its own, named "pretend"; its memory and its arithmetic are the CPU's.

Mixed devices and a generator of another device are errors there, as on a GPU, and `Waits` notes where the program would wait for
a GPU. `pretend_device.cpp` is the device; a C++ compiler makes it once (10 s), and pytest's cache keeps it.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
import traceback
import types
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import robusttune
from robusttune.training.step import Stepper

NAME = "pretend"
NEEDS = (2, 14)  # the torch whose C++ interface the source was written for
SOURCE = Path(__file__).with_suffix(".cpp")
PACKAGE = Path(robusttune.__file__).parent
COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


def reason_against():
    """The reason why there can be no pretend accelerator here; None if there can be one."""
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if sys.platform != "linux" or COMPILER is None:
        return "the pretend accelerator needs Linux and a C++ compiler: apt-get install g++"
    if version < NEEDS:
        return (
            f"the pretend accelerator needs torch {'.'.join(map(str, NEEDS))} or later, and this is {torch.__version__}"
        )
    if torch.cuda.is_available():
        return "there is a real accelerator here: pytest -m gpu"
    return None


def registered(folder):
    """Compile the device into a folder, unless it is there, and register it; it is not available yet.

    This must happen before the first backward pass of the process, as torch starts its threads for devices then.
    """
    key = hashlib.sha256(SOURCE.read_bytes() + torch.__version__.encode()).hexdigest()[:16]
    library = Path(folder) / f"pretend_device_{key}.so"
    with open(library.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the processes of pytest-xdist begin at the same time
        if not library.exists():
            _compile(library)
    torch.utils.rename_privateuse1_backend(NAME)
    torch.ops.load_library(library)
    torch._register_device_module(NAME, _Module(NAME))


def _compile(library):
    made, torch_folder = library.with_suffix(".part"), Path(torch.__file__).parent
    options = ["-std=c++20", "-O1", "-shared", "-fPIC", f"-I{torch_folder / 'include'}"]
    libraries = [f"-L{torch_folder / 'lib'}", "-lc10", "-ltorch_cpu"]
    ended = subprocess.run([COMPILER, *options, SOURCE, "-o", made, *libraries], capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"{SOURCE.name} does not compile with torch {torch.__version__}:\n{ended.stderr[-4000:]}")
    made.rename(library)


class _Module(types.ModuleType):
    """What torch looks for in `torch.pretend`."""

    now = False

    def switch(self, now):
        self.now = now
        torch.ops.pretend.switch_on(now)

    def is_available(self):
        return self.now

    def is_initialized(self):
        return self.now

    def device_count(self):
        return int(self.now)

    def current_device(self):
        return 0

    def device(self, _):
        return nullcontext()

    def _is_in_bad_fork(self):
        return False

    def manual_seed_all(self, seed):
        torch.ops.pretend.global_generator().manual_seed(seed)

    def get_rng_state(self, _=None):
        return torch.ops.pretend.global_generator().get_state()

    def set_rng_state(self, state, _=None):
        torch.ops.pretend.global_generator().set_state(state)

    def get_amp_supported_dtype(self):
        return [torch.bfloat16, torch.float16]


@contextmanager
def available():
    """Let torch see the pretend accelerator inside this context; yields its device."""
    torch.get_device_module(NAME).switch(True)
    try:
        yield torch.device(NAME, 0)
    finally:
        torch.get_device_module(NAME).switch(False)


class Wait(NamedTuple):
    """A place where the program would wait for a GPU.

    Attributes:
        operation: of torch.
        place: the innermost line of robusttune that leads there, "elsewhere" for none, as in a backward pass.
    """

    operation: str
    place: str


READS = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "unique_dim", "bincount"}
READS |= {"unique_consecutive", "lift_fresh"}  # the latter is `torch.tensor(…, device=…)`
READS |= {"allclose", "histc", "isin", "multinomial", "_linalg_check_errors"}  # which read a value inside


class Waits(TorchDispatchMode):
    """Notes in `noted` where the program would wait for a GPU, and refuses it with `refuse=True`.

    Those are values and shapes that the host reads, copies to the CPU, and copies from the CPU without `non_blocking`.
    """

    def __init__(self, refuse=False):
        super().__init__()
        self.refuse, self.noted = refuse, []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        name = function.overloadpacket.__name__
        before = [leaf for leaf in tree_leaves((arguments, keywords)) if isinstance(leaf, torch.Tensor)]
        result = function(*arguments, **keywords)
        here = [tensor.device.type == NAME for tensor in before]
        if any(here) or getattr(result, "device", None) == torch.device(NAME, 0):
            copies = name in ("_to_copy", "copy_") and self._waits_for_copy(name, result, before, arguments, keywords)
            reads = name in READS or str(function) == "aten.repeat_interleave.Tensor"
            if copies or reads or self._indexes(name, arguments):
                self._note(name)
        return result

    def _waits_for_copy(self, name, result, before, arguments, keywords):
        source = before[-1] if name == "copy_" else before[0]
        if source.device == result.device:
            return False
        blocks = not (keywords.get("non_blocking") or (name == "copy_" and len(arguments) > 2 and arguments[2]))
        return blocks or result.device.type == "cpu"  # the CPU would read what has not come yet

    def _indexes(self, name, arguments):
        """Indices by booleans are counted first, and those of the CPU are copied."""
        if name not in ("index", "index_put", "index_put_", "_unsafe_index"):
            return False
        indices = [each for each in arguments[1] if each is not None]
        fills = name != "index" and arguments[2].dim() == 0
        return any((each.dtype == torch.bool and not fills) or each.device.type == "cpu" for each in indices)

    def _note(self, operation):
        frames = traceback.extract_stack()
        if any(frame.name == "_to_device_nonblocking" for frame in frames):
            return  # Kornia does not wait on CUDA there
        inside = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)]
        last = inside[-1] if inside else None
        place = f"{Path(last.filename).relative_to(PACKAGE)}:{last.lineno} {last.name}" if last else "elsewhere"
        wait = Wait(operation, place)
        self.noted.append(wait)
        if self.refuse:
            raise AssertionError(f"{wait.operation} at {wait.place} waits for the device")


class Copy(NamedTuple):
    """A copy of a tensor of the CPU to the pretend accelerator: of which shape, in one piece, and waited for."""

    shape: tuple[int, ...]
    contiguous: bool
    waits: bool


class Copies(TorchDispatchMode):
    """Notes in `noted` each copy from the CPU; one from pinned memory needs no wait if it is of one piece."""

    def __init__(self):
        super().__init__()
        self.noted = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        result = function(*arguments, **keywords)
        if function.overloadpacket.__name__ == "_to_copy" and (arguments[0].device.type, result.device.type) == (
            "cpu",
            NAME,
        ):
            source = arguments[0]
            dense = source.is_contiguous() or source.is_contiguous(memory_format=torch.channels_last)
            self.noted.append(Copy(tuple(source.shape), dense, not keywords.get("non_blocking", False)))
        return result


@contextmanager
def watched_steps():
    """Yield a list, to which the training steps after the first, which makes constants, add where they wait."""
    noted, taken, take = [], [], Stepper.take

    def watched(*arguments, **settings):
        with Waits() as waits:
            terms = take(*arguments, **settings)
        noted.extend(waits.noted if taken else [])
        taken.append(True)
        return terms

    Stepper.take = watched
    try:
        yield noted
    finally:
        Stepper.take = take
    assert len(taken) > 1, "a run of two steps or more is needed"
