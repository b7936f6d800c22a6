"""Parts and shares of a loader: they load as the loader itself does."""

import pytest
import torch
from guarded import GOOD
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from robusttune.data import sharding

WORKERS = ("num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn", "persistent_workers")


def collated(rows):
    return torch.utils.data.default_collate(rows)


def started(worker):
    pass


def a_loader(rows=64, **arguments):
    """A loader on which every argument differs from its default."""
    images, labels = (tensor.repeat(rows // 8, *[1] * (tensor.dim() - 1)) for tensor in GOOD)
    workers = {"num_workers": 2, "persistent_workers": True, "multiprocessing_context": "spawn", "timeout": 9}
    workers |= {"collate_fn": collated, "pin_memory": True, "worker_init_fn": started}
    return DataLoader(TensorDataset(images, labels), batch_size=6, drop_last=True, **workers, **arguments)


def loads_alike(one, other):
    assert one.multiprocessing_context.get_start_method() == other.multiprocessing_context.get_start_method()
    return one.batch_size == other.batch_size and all(getattr(one, key) == getattr(other, key) for key in WORKERS)


@pytest.fixture
def second_of_two(monkeypatch):
    """This process takes itself for the second of two."""
    monkeypatch.setattr(sharding, "together", lambda: True)
    monkeypatch.setattr(sharding, "world", lambda: 2)
    monkeypatch.setattr(sharding, "rank", lambda: 1)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda *_: 2)
    monkeypatch.setattr("torch.distributed.get_rank", lambda *_: 1)
    monkeypatch.setattr("torch.distributed.is_available", lambda: True)


def test_a_share_is_put_together_again_for_evaluation(second_of_two):
    images = a_loader().dataset
    share = a_loader(sampler=DistributedSampler(images, shuffle=True))
    whole = sharding.whole(share)
    assert loads_alike(whole, share)
    assert whole.dataset is share.dataset
    assert list(whole.sampler) == list(range(64))
    assert not whole.drop_last
    assert sharding.whole(whole) is whole
