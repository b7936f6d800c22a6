"""Random states: seeded for a run, saved, restored, and given back."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Seed the random states of torch, numpy and Python, and put them back as they were afterwards."""
    python, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)


def random_states(loader: Any) -> dict[str, Any]:
    """The states of torch, numpy, Python, the accelerator, and of the loader's own generators."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "python": random.getstate(),
        "loader": [generator.get_state() for generator in generators(loader)],
    }


def restore_random_states(states: Mapping[str, Any], loader: Any) -> None:
    """Go on with the states that `random_states` gave."""
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all(states["cuda"])
    kind, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, inner, gaussian = states["python"]
    random.setstate((version, tuple(inner), gaussian))
    for generator, state in zip(generators(loader), states["loader"], strict=False):
        generator.set_state(state)


def generators(loader: Any) -> list[torch.Generator]:
    """The sources of chance that a loader holds."""
    places = (
        loader,
        getattr(loader, "sampler", None),
        getattr(getattr(loader, "batch_sampler", None), "sampler", None),
    )
    found = [getattr(place, "generator", None) for place in places if place is not None]
    unique = {id(generator): generator for generator in found if isinstance(generator, torch.Generator)}
    return list(unique.values())
