"""Parts and shares of a loader: they load as the loader itself does."""

import pytest
import torch
from guarded import GOOD, evaluated, hardened, small_model
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from robusttune.data import sharding
from robusttune.data.loaders import batches_of, is_plain, length_of, rebuilt
from robusttune.data.splits import FirstImages, held_back, subset_of

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
    assert isinstance(sharding.whole(DataLoader(range(10), 4, shuffle=True)).sampler, SequentialSampler)


# What is rebuilt


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_share_loads_as_the_loader_does(second_of_two, shuffle):
    loader = a_loader(shuffle=shuffle)
    share = sharding.sharded(loader, None, seed=3)
    assert loads_alike(share, loader)
    assert share.dataset is loader.dataset
    assert isinstance(share.sampler, DistributedSampler)
    assert (share.sampler.rank, share.sampler.num_replicas, share.sampler.seed) == (1, 2, 3)
    assert share.sampler.shuffle == shuffle
    assert share.drop_last
    assert share.sampler.drop_last
    assert share.generator is None
    assert sharding.sharded(share, None, seed=3) is share


@pytest.mark.parametrize("shuffle", [True, False])
def test_what_is_left_for_training_loads_as_before_and_what_is_held_back_drops_nothing(shuffle):
    loader = a_loader(rows=160, shuffle=shuffle, generator=torch.Generator().manual_seed(1))
    rest, held = held_back(loader, 0.2, seed=0)
    assert loads_alike(rest, loader)
    assert loads_alike(held, loader)
    assert isinstance(rest.sampler, RandomSampler) == shuffle
    assert (rest.drop_last, held.drop_last) == (True, False)
    assert (rest.generator, held.generator) == (loader.generator, None)
    assert not shuffle or rest.sampler.generator is loader.generator
    assert isinstance(held.sampler, SequentialSampler)
    assert sorted(rest.dataset.indices + held.dataset.indices) == list(range(160))
    assert len(held.dataset) == 32
    assert held_back(loader, 0.19, seed=0) == (loader, None)


def test_a_subset_loads_as_the_loader_does():
    loader = a_loader(shuffle=True)
    subset = subset_of(loader, 10, seed=0)
    assert loads_alike(subset, loader)
    assert len(subset.dataset) == 10
    assert not subset.drop_last
    assert isinstance(subset.sampler, SequentialSampler)
    with pytest.raises(ValueError, match="subset is 0, but at least one image is needed"):
        subset_of(loader, 0, seed=0)


def test_batches_of_a_batch_sampler_keep_their_size():
    images = TensorDataset(*GOOD)
    batches = torch.utils.data.BatchSampler(SequentialSampler(images), 3, drop_last=False)
    assert rebuilt(DataLoader(images, batch_sampler=batches)).batch_size == 3
    assert rebuilt(DataLoader(images, batch_size=None)).batch_size == 1


def test_an_order_drawn_by_the_sampler_s_own_generator_is_drawn_by_it_still():
    images = TensorDataset(torch.arange(1000))
    generator = torch.Generator().manual_seed(1)
    rest, _ = held_back(DataLoader(images, 8, sampler=RandomSampler(images, generator=generator)), 0.1, seed=0)
    first = list(rest.sampler)
    generator.manual_seed(1)
    assert list(rest.sampler) == first


def test_nothing_is_held_back_where_no_batch_would_be_left():
    loader = DataLoader(TensorDataset(torch.arange(700)), 700, drop_last=True)
    assert held_back(loader, 0.05, seed=0) == (loader, None)


# Which loaders can be


@pytest.mark.parametrize("error", [TypeError, NotImplementedError, AttributeError])
def test_a_length_that_raises_is_no_length(error):
    class Sized:
        def __len__(self):
            raise error("no length")

    assert length_of(Sized()) is None
    assert length_of(None) is None
    assert length_of([1, 2]) == 2


class Streamed(IterableDataset):
    def __iter__(self):
        return iter(zip(*GOOD, strict=True))

    def __len__(self):
        return 8


class Endless(Dataset):
    """A map-style data set without a length."""

    def __getitem__(self, row):
        return GOOD[0][row % 8], GOOD[1][row % 8]


class Derived(DataLoader):
    pass


class Hardest(SequentialSampler):
    def __iter__(self):
        return iter([7] * 8)


IMAGES = TensorDataset(*GOOD)
OTHERS = {
    "a list": [GOOD],
    "a derived class": Derived(IMAGES, batch_size=4),
    "an iterable data set": DataLoader(Streamed(), batch_size=4),
    "a data set without length": DataLoader(Endless(), batch_size=4),
    "single images": DataLoader(IMAGES, batch_size=None),
    "a sampler of another kind": DataLoader(IMAGES, batch_size=4, sampler=WeightedRandomSampler([1.0] * 8, 8)),
    "a sampler with replacement": DataLoader(IMAGES, batch_size=4, sampler=RandomSampler(IMAGES, replacement=True)),
    "a sampler of a part": DataLoader(IMAGES, batch_size=4, sampler=RandomSampler(IMAGES, num_samples=6)),
    "a sampler of fewer images": DataLoader(IMAGES, batch_size=4, sampler=SequentialSampler(range(6))),
    "a sampler of a derived class": DataLoader(IMAGES, batch_size=4, sampler=Hardest(IMAGES)),
    "a batch sampler": DataLoader(IMAGES, batch_sampler=[[0, 1], [2, 3]]),
}


@pytest.mark.parametrize("loader", OTHERS.values(), ids=OTHERS)
def test_other_loaders_are_neither_split_nor_shared_out_silently(second_of_two, loader):
    assert not is_plain(loader)
    assert held_back(loader, 0.9, seed=0) == (loader, None)
    assert isinstance(subset_of(loader, 2, seed=0), FirstImages)
    with pytest.raises(ValueError, match=r"2 processes .* cannot be sharded: pass a DataLoader .*, or sharded=True"):
        sharding.sharded(loader, None, seed=0)
    assert sharding.sharded(loader, True, seed=0) is loader


def test_an_iterable_data_set_is_not_plain_whatever_its_sampler_is():
    loader = DataLoader(Streamed(), batch_size=4)
    object.__setattr__(loader, "sampler", SequentialSampler(IMAGES))
    assert not is_plain(loader)


def test_with_sharded_false_every_second_batch_is_taken_and_the_incomplete_round_dropped(second_of_two):
    batches = [(images, labels) for images, labels in DataLoader(IMAGES, batch_size=1)][:7]
    taken = sharding.sharded(batches, False, seed=0)
    assert [number for batch in taken for number, each in enumerate(batches) if batch is each] == [1, 3, 5]
    assert list(sharding.own_share(range(7))) == [1, 3, 5]


def test_one_process_alone_takes_the_loader_as_it_is():
    loader = a_loader(shuffle=True)
    for marked in (None, True, False):
        assert sharding.sharded(loader, marked, seed=0) is loader
    assert sharding.whole(loader) is loader


def test_a_loader_or_sampler_that_wants_the_epoch_gets_it():
    share = DataLoader(IMAGES, sampler=DistributedSampler(IMAGES, 2, 0))
    sharding.set_epoch(share, 4)
    assert share.sampler.epoch == 4
    sharding.set_epoch([GOOD], 4)


class Said:
    """A loader that says that it has this many batches, and yields that many."""

    def __init__(self, length, batches, workers=0):
        self.length, self.batches, self.num_workers = length, batches, workers

    def __len__(self):
        return self.length

    def __iter__(self):
        return iter([GOOD] * self.batches)


def test_a_length_that_is_not_that_of_the_batches_is_warned_of(caplog):
    for loader in (Said(3, 3), Said(3, 4, workers=1), [GOOD] * 3, iter([GOOD] * 3)):
        list(batches_of(loader))
    assert not caplog.messages
    for loader in (Said(6, 3), Said(2, 3), Said(3, 6, workers=2)):
        list(batches_of(loader, "val_loader"))
    assert [message[:58] for message in caplog.messages] == [
        "the val_loader says that it has 6 batches, but yielded 3: ",
        "the val_loader says that it has 2 batches, but yielded 3: ",
        "the val_loader says that it has 3 batches, but yielded 6: ",
    ]


@pytest.mark.parametrize("run", [hardened, evaluated])
def test_training_and_evaluation_warn_of_a_wrong_length(run, caplog):
    loader = Said(20, 2)
    for _ in range(2):
        run(small_model(), loader)
    assert sum("says that it has 20 batches, but yielded 2" in message for message in caplog.messages) == 1


class Killed(Said):
    """A loader whose worker dies, as torch reports it where it was just reading from it."""

    def __iter__(self):
        yield GOOD
        raise ConnectionResetError(104, "Connection reset by peer")


def test_a_worker_that_dies_is_said_in_words():
    with pytest.raises(RuntimeError, match=r"worker process of the loader has died after batch 1.*num_workers=0"):
        list(batches_of(Killed(3, 3, workers=1)))
    with pytest.raises(ConnectionResetError):
        list(batches_of(Killed(3, 3)))
