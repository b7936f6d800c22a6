"""The start of several processes: a bounded wait for all of them, and the ranks that did not come."""

import logging
import os
import time
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

PATIENCE = 600.0  # seconds
PAUSE = 0.2
VARIABLE = "ROBUSTTUNE_START_TIMEOUT"
logger = logging.getLogger("robusttune")

NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def join_group(card: str) -> None:
    """Start torch's process group from the variables of the environment, as torchrun, accelerate and Slurm scripts set them.

    ROBUSTTUNE_START_TIMEOUT is the number of seconds to wait for the other processes, 600 by default.

    Args:
        card: name of this process's CUDA device, which no other device of any machine has; "" for another device.

    Raises:
        ValueError: some ranks have not started by then.
    """
    missing = [name for name in NEEDED if name not in os.environ]
    if missing:
        raise ValueError(
            f"several processes are to work together, but {' and '.join(missing)} is not set: start them by torchrun, or set "
            f"{', '.join(NEEDED)} in each"
        )
    rank, world, seconds = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), _patience()
    store = _store(rank, world, seconds)
    store.set(f"card {rank}", card)
    _wait_for_all(store, rank, world, seconds)
    backend = _backend([store.get(f"card {each}").decode() for each in range(world)], show=rank == 0)
    # A new prefix, as torch counts those who have come under keys of its own.
    dist.init_process_group(backend, store=PrefixStore("robusttune", store), rank=rank, world_size=world)


def _backend(cards: list[str], *, show: bool) -> str:
    """Return NCCL where each process has a CUDA device to itself, as NCCL refuses to share one; else gloo.

    All processes choose by the same list, so that they choose alike, also where their machines differ.

    Args:
        cards: names of the CUDA devices of all processes; "" for another device.
        show: log that devices are shared.
    """
    alone = len(set(cards)) == len(cards)
    if show and all(cards) and not alone:
        logger.warning(
            "%d processes share %s, so gloo exchanges their gradients, through the memory of the host: NCCL needs a GPU for "
            "each process",
            len(cards),
            "one GPU" if len(set(cards)) == 1 else f"{len(set(cards))} GPUs",
        )
    return "nccl" if all(cards) and alone and dist.is_nccl_available() else "gloo"


def _patience() -> float:
    """Return the seconds to wait.

    Raises:
        ValueError: the variable holds no number above 0.
    """
    text = os.environ.get(VARIABLE, str(PATIENCE))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ValueError(f"{VARIABLE} is {text!r}, but a number of seconds above 0 is needed, such as 600")
    return seconds


def _store(rank: int, world: int, seconds: float) -> Store:
    """Connect to the store of rank 0, or of torchrun's agent, which outlives restarts of its processes.

    Raises:
        ValueError: nobody answers.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        store: Store = TCPStore(
            *(address, port, world, rank == 0 and not agent, timedelta(seconds=seconds)),
            wait_for_workers=False,
            multi_tenant=True,
        )
    except RuntimeError as error:  # dist.DistError among them
        raise ValueError(
            f"rank {rank} found no rank 0 at {address}:{port} in {seconds:g} seconds: look at its log, at MASTER_ADDR and MASTER_PORT, "
            f"or wait longer with {VARIABLE}"
        ) from error
    return PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def _wait_for_all(store: Store, rank: int, world: int, seconds: float) -> None:
    """Wait until every rank has reported to the store.

    Raises:
        ValueError: some have not in this time, or the process of the store has ended.
    """
    store.set(f"rank {rank}", "here")
    deadline, waiting = time.monotonic() + seconds, list(range(world))
    while True:
        try:
            waiting = [each for each in waiting if not store.check([f"rank {each}"])]
        except RuntimeError as error:  # the store belongs to a process
            raise ValueError(
                f"rank 0 has ended while rank {rank} waited for rank {', '.join(map(str, waiting))}: look at the log of each"
            ) from error
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise ValueError(
                f"{len(waiting)} of {world} processes have not started in {seconds:g} seconds: rank {', '.join(map(str, waiting))}; "
                f"look at the log of each, or wait longer with {VARIABLE}"
            )
        time.sleep(PAUSE)
