"""RobustLoss inside DistributedDataParallel, on two processes that talk over gloo."""

from types import SimpleNamespace

import pytest
import torch
from third_parties import ContentTurn, Trades, a_batch, a_loss, after_backward, difference, no_attack
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from robusttune.run import distributed as own

CASES = [(), ("first", "second", "shared")]
STEPS = 4


def fixed_loss(names):
    """Every image takes every task, and nothing is random or depends on the rest of the batch."""
    tasks = {ContentTurn(name, shares_forward=name == "shared"): 0.5 for name in names}
    robust_loss = a_loss(tasks=tasks or None, views="all", attack=no_attack)
    robust_loss.model.eval()
    return robust_loss


def one_of_two(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    shard = [tensor[rank::2] for tensor in a_batch()]
    fixed = [after_backward(DistributedDataParallel(fixed_loss(names)), shard)[1] for names in CASES]
    idle = a_loss("rotation", "jigsaw", attack="pgd", steps=1)
    idle.model.eval()
    stepping = a_loss("rotation", "jigsaw", "patch", objective=Trades(), attack="pgd", steps=1)
    torch.save((fixed, steps(idle, [tensor[:1] for tensor in shard]), steps(stepping, shard)), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def steps(robust_loss, shard):
    """The pretext tasks that were drawn, and the gradients, of some steps: DDP finds an idle parameter at the next."""
    wrapped = DistributedDataParallel(robust_loss)
    found = []
    for _ in range(STEPS):
        wrapped.zero_grad()
        out, gradients = after_backward(wrapped, shard)
        found.append(({name for name in robust_loss.heads.tasks if out[name] > 0}, gradients))
    return found


@pytest.mark.slow
def test_two_processes_agree_with_one_and_an_idle_head_is_no_error(tmp_path):
    multiprocessing.spawn(one_of_two, (str(tmp_path),), nprocs=2)
    (fixed, idle, stepping), (fixed_too, idle_too, stepping_too) = (
        torch.load(tmp_path / f"{rank}.pt") for rank in range(2)
    )
    for names, found, found_too in zip(CASES, fixed, fixed_too, strict=True):
        whole = after_backward(fixed_loss(names), a_batch())[1]
        assert difference(found, {f"module.{name}": gradient for name, gradient in whole.items()}) < 1e-6
        assert difference(found_too, found) == 0
    for (_, gradients), (_, gradients_too) in zip(idle + stepping, idle_too + stepping_too, strict=True):
        assert difference(gradients, gradients_too) == 0
    draws = [(drawn, drawn_too) for (drawn, _), (drawn_too, _) in zip(idle, idle_too, strict=True)]
    assert all(len(drawn) == len(drawn_too) == 1 for drawn, drawn_too in draws)
    assert any(drawn != drawn_too for drawn, drawn_too in draws)  # each process has its own generator


@pytest.fixture
def cards(monkeypatch):
    """A function that pretends so many CUDA devices and a local rank; it returns a list that notes the current device."""

    def seen(count, **environment):
        current = []
        monkeypatch.delenv("LOCAL_RANK", raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(own, "world", lambda: 4)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", current.append)
        return current

    return seen


@pytest.mark.parametrize(
    ("asked", "count", "expected"),
    [("cuda:0", 4, "cuda:3"), ("cuda", 4, "cuda:3"), ("cuda:2", 4, "cuda:2"), ("cpu", 4, "cpu"), ("cuda", 2, "cuda:1")],
)
def test_the_device_of_a_process_is_the_current_one(cards, asked, count, expected):
    current = cards(count, LOCAL_RANK="3")
    assert own.local_device(torch.device(asked)) == torch.device(expected)
    assert current == [torch.device(expected)] * (asked != "cpu")


def test_processes_share_the_only_device_that_they_see(cards):
    assert cards(1, LOCAL_RANK="3") == []
    assert own.local_device(torch.device("cuda")) == torch.device("cuda:0")


def test_slurm_numbers_processes_where_no_launcher_does(cards):
    cards(4, SLURM_LOCALID="2")
    assert own.local_device(torch.device("cuda")) == torch.device("cuda:2")


def test_a_process_alone_keeps_the_current_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: pytest.fail("it was changed"))
    assert own.local_device(torch.device("cuda", 0)) == torch.device("cuda", 0)


def test_who_joins_names_the_card_that_it_takes(monkeypatch, cards):
    joined, cards = [], cards(2, LOCAL_RANK="3", WORLD_SIZE="4", RANK="3")
    monkeypatch.setattr(own, "join_group", joined.append)
    monkeypatch.setattr(own.atexit, "register", lambda leave: None)
    monkeypatch.setattr(own.socket, "gethostname", lambda: "node1")
    addresses = {"pci_domain_id": 0, "pci_bus_id": 65, "pci_device_id": 1}
    for known in (addresses, {"uuid": "1234"}, {}):
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, known=known: SimpleNamespace(**known))
        assert own.join(torch.device("cuda")) == torch.device("cuda:1")
    assert own.join(torch.device("cpu")) == torch.device("cpu")
    assert joined == ["node1 0:65:1", "node1 1234", "node1 1", ""]
    assert cards == [torch.device("cuda:1")] * 3


@pytest.fixture
def a_group(monkeypatch):
    """A gloo group of this process alone, which the functions take for one of several processes."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    monkeypatch.setattr(own, "together", lambda: True)
    yield
    distributed.destroy_process_group()


def test_numbers_of_a_device_that_gloo_does_not_know_are_exchanged_on_the_cpu(accelerator, a_group):
    assert own.summed([1.0, 2.5], accelerator) == [1.0, 2.5]
    assert own.agreed(0.25, accelerator) == 0.25
    assert own.gathered({"a": 1}) == [{"a": 1}]
    own.barrier()


@pytest.mark.parametrize(
    ("backends", "expected"),
    [("cpu:gloo,cuda:gloo", "cpu"), ("cpu:gloo,cuda:nccl", "cpu"), ("cuda:nccl", "cuda:1"), ("undefined", "cuda:1")],
)
def test_numbers_are_exchanged_where_the_group_can_do_so(monkeypatch, backends, expected):
    monkeypatch.setattr(distributed, "get_backend_config", lambda: backends)
    assert own._place_of_numbers(torch.device("cuda:1")) == torch.device(expected)
