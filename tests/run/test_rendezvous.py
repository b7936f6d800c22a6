"""Processes that wait for each other: all of them, or a bounded time."""

import os
import socket
import subprocess
import sys

import pytest
from torch import distributed as dist
from torch.distributed import HashStore

from robusttune.run.rendezvous import _backend, _patience, _wait_for_all, join_group

SCRIPT = """
import sys
import torch
from robusttune.run import distributed
from robusttune.run.rendezvous import join_group

if len(sys.argv) > 1:
    join_group(sys.argv[1])
distributed.join(torch.device("cpu"))
print("backend", torch.distributed.get_backend())
print("sum", distributed.summed([distributed.rank() + 1], torch.device("cpu")))
"""


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def started(rank, port, *card, world=3, seconds=60, **more):
    environment = {
        "RANK": rank,
        "WORLD_SIZE": world,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": 1,
    }
    environment |= {"ROBUSTTUNE_START_TIMEOUT": seconds, **more}
    values = {key: str(value) for key, value in environment.items() if value is not None}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, *card],
        env={key: value for key, value in os.environ.items() if key not in environment} | values,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("card", [[], ["a card of both"]])
def test_all_ranks_that_start_work_together(card):
    port = free_port()
    processes = [started(rank, port, *card, world=2) for rank in (1, 0)]
    ended = [each.communicate(timeout=90) for each in processes]
    assert ["sum [3.0]" in said for said, _ in ended] == [True, True]
    assert ["backend gloo" in said for said, _ in ended] == [True, True]
    assert ["2 processes share one GPU" in logged for _, logged in ended] == [False, bool(card)]


def test_the_ranks_that_are_missing_are_named():
    store = HashStore()
    store.set("rank 2", "here")
    with pytest.raises(
        ValueError, match=r"2 of 4 processes have not started in 0\.3 seconds: rank 1, 3; look at the log"
    ):
        _wait_for_all(store, 0, 4, 0.3)


def test_a_rank_0_that_gives_up_first_is_named():
    class Closing(HashStore):
        def check(self, keys):
            if keys == ["rank 2"]:
                raise RuntimeError("Failed to recv, got 0 bytes")
            return True

    with pytest.raises(
        ValueError, match="rank 0 has ended while rank 1 waited for rank 0, 1, 2, 3: look at the log of"
    ):
        _wait_for_all(Closing(), 1, 4, 0.3)


@pytest.mark.slow
def test_ranks_that_never_start_are_named_after_the_time_to_wait():
    port = free_port()
    processes = [started(rank, port, seconds=20) for rank in (0, 2)]
    errors = [each.communicate(timeout=90)[1] for each in processes]
    late = "1 of 3 processes have not started in 20 seconds: rank 1"
    assert late in errors[0], errors
    assert late in errors[1] or "rank 0 has ended while rank 2 waited for rank 1" in errors[1], errors
    assert "ROBUSTTUNE_START_TIMEOUT" in errors[0]


@pytest.mark.slow
def test_a_rank_0_that_never_starts_is_named_with_its_address():
    port = free_port()
    error = started(1, port, world=2, seconds=2).communicate(timeout=90)[1]
    assert f"rank 1 found no rank 0 at 127.0.0.1:{port} in 2 seconds" in error


@pytest.mark.parametrize("seconds", ["soon", "0", "-1", "nan", "inf"])
def test_a_time_that_is_none_is_refused(seconds, monkeypatch):
    monkeypatch.setenv("ROBUSTTUNE_START_TIMEOUT", seconds)
    with pytest.raises(
        ValueError, match=f"ROBUSTTUNE_START_TIMEOUT is '{seconds}', but a number of seconds above 0 is"
    ):
        _patience()


def test_a_variable_that_is_missing_is_named(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(
        ValueError, match=r"WORLD_SIZE and MASTER_ADDR and MASTER_PORT is not set: start them by torchrun"
    ):
        join_group("")


CARDS = {
    "each its own": (["a 0", "a 1"], "nccl"),
    "of two machines": (["a 0", "b 0"], "nccl"),
    "one": (["a 0", "a 0"], "gloo"),
    "one of two machines": (["a 0", "a 1", "b 0", "b 0"], "gloo"),
    "none": (["", ""], "gloo"),
    "one alone": (["a 0", ""], "gloo"),
}


@pytest.mark.parametrize("name", CARDS)
def test_nccl_is_taken_where_each_process_has_a_card_to_itself(name, monkeypatch, caplog):
    cards, expected = CARDS[name]
    monkeypatch.setattr(dist, "is_nccl_available", lambda: True)
    assert _backend(cards, show=True) == _backend(cards, show=False) == expected
    shared = {"one": "2 processes share one GPU, so gloo", "one of two machines": "4 processes share 3 GPUs, so gloo"}
    assert len(caplog.records) == (name in shared)
    assert shared.get(name, "") in caplog.text


def test_without_nccl_cards_talk_by_gloo(monkeypatch):
    monkeypatch.setattr(dist, "is_nccl_available", lambda: False)
    assert _backend(["a 0", "a 1"], show=True) == "gloo"
