"""Random states of torch, numpy and Python: seeded for a while, saved and restored."""

import logging
import os
import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import numpy as np
import torch

from robusttune.types import Loader

States: TypeAlias = dict[str, Any]  # as a checkpoint holds them
PATIENCE = 10.0  # seconds after which a thread that waits says so

logger = logging.getLogger("robusttune")
_turn = threading.RLock()


def _forget_threads() -> None:
    global _turn
    _turn = threading.RLock()


os.register_at_fork(after_in_child=_forget_threads)  # only one thread goes on there


@contextmanager
def _in_turn() -> Iterator[None]:
    turn = _turn
    if not turn.acquire(timeout=PATIENCE):
        logger.warning(
            "another thread of this process is in a run, and both need its random states: waiting until that ends (where it "
            "waits for this thread, start one of them in a process of its own)"
        )
        turn.acquire()
    try:
        yield
    finally:
        turn.release()


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Seed the global random states of torch, numpy and Python inside this context, and restore them after it.

    Threads enter one after the other, as these states belong to the process.
    """
    with _in_turn(), _seeded(seed):
        yield


@contextmanager
def others_in_turn() -> Iterator[None]:
    """Let other threads enter `own_randomness` inside this context, in which this thread only waits for them."""
    turn, entered = _turn, 0
    with suppress(RuntimeError):  # raised once this thread holds the turn no more
        while True:
            turn.release()
            entered += 1
    try:
        yield
    finally:
        for _ in range(entered):
            turn.acquire()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    python, arrays, number = random.getstate(), np.random.get_state(), int(seed)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            torch.manual_seed(number)
            np.random.seed(number % 2**32)
            random.seed(number)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)


@contextmanager
def rewound(*loaders: Loader | None) -> Iterator[None]:
    """Restore the generators of loaders, which these draw from, after this context."""
    states = [(source, source.get_state()) for loader in loaders for source in generators(loader)]
    try:
        yield
    finally:
        for source, state in states:
            source.set_state(state)


def random_states(*loaders: Loader | None) -> States:
    """Copy the random states of torch, CUDA, numpy and Python, and of the loaders' generators, for a checkpoint."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "python": random.getstate(),
        "loader": [generator.get_state() for generator in generators(*loaders)],
    }


def restore_random_states(states: Mapping[str, Any], *loaders: Loader | None) -> None:
    """Restore what `random_states` returned for these loaders; CUDA's states only on a machine with as many devices."""
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all(states["cuda"])
    kind, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, inner, gaussian = states["python"]
    random.setstate((version, tuple(inner), gaussian))
    for generator, state in zip(generators(*loaders), states["loader"], strict=False):
        generator.set_state(state)


def generators(*loaders: Loader | None) -> list[torch.Generator]:
    """List the generators of loaders and their samplers, each once; those of both loaders, where one mixes two."""
    owners: list[object] = []
    for each in [part for loader in loaders for part in getattr(loader, "loaders", (loader,))]:
        batch_sampler = getattr(each, "batch_sampler", None)
        owners += [each, getattr(each, "sampler", None), getattr(batch_sampler, "sampler", None)]
    held = [getattr(owner, "generator", None) for owner in owners]
    unique = {id(generator): generator for generator in held if isinstance(generator, torch.Generator)}
    return list(unique.values())
