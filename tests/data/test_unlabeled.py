"""Images without labels, labelled as they are loaded."""

from functools import partial

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from robusttune.data.unlabeled import AllImages, Labelled, Mixture
from robusttune.run.randomness import random_states, restore_random_states


def numbered(first, count):
    """Images of one value each, by which they are known."""
    return torch.arange(first, first + count).float().reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2) / 1000


def first_digit(images):
    return (images[:, 0, 0, 0] * 1000).round().long() // 100


def mixture(known=30, more=170, batch=16, share=None, soft=False, shuffle=False, label=first_digit):
    labels = torch.full((known,), 9)
    labels = torch.nn.functional.one_hot(labels, 10).float() if soft else labels
    labelled = DataLoader(TensorDataset(numbered(0, known), labels), batch, shuffle=shuffle)
    unlabelled = DataLoader(TensorDataset(numbered(known, more)), 2 * batch, shuffle=shuffle)
    sizes = min(batch, known), min(2 * batch, more)
    return Mixture(labelled, unlabelled, label, classes=10, batches=sizes, share=share)


@pytest.mark.parametrize(("known", "more", "batch"), [(30, 170, 16), (2, 99, 10), (99, 2, 10), (7, 7, 3), (1, 1, 1)])
@pytest.mark.parametrize("shuffle", [False, True])
def test_each_image_occurs_once_an_epoch(known, more, batch, shuffle):
    batches = list(mixture(known, more, batch, shuffle=shuffle))
    values = torch.cat([images[:, 0, 0, 0] for images, _ in batches])
    assert values.sort().values.allclose(torch.arange(known + more) / 1000)
    assert len(batches) == len(mixture(known, more, batch))
    assert all(len(images) == len(labels) for images, labels in batches)
    assert {len(images) for images, _ in batches[:-1]} <= {min(batch, known)}


def test_every_batch_holds_both_kinds_in_proportion():
    for images, labels in list(mixture(50, 150, 16))[:-1]:
        known = int((labels == 9).sum())
        assert known == 4
        assert (labels[:known] == 9).all()
        assert torch.equal(labels[known:], first_digit(images[known:]))


def test_a_share_repeats_the_rarer_kind():
    batches = list(mixture(10, 190, 10, share=0.5))
    assert sum(len(images) for images, _ in batches) == 200
    assert all((labels == 9).sum() == 5 for _, labels in batches)


class Refilled:
    """Batches that all lie in the same memory, as those of loaders that reuse it."""

    def __init__(self, *tensors, size):
        self.tensors, self.size = tensors, size

    def __len__(self):
        return len(self.tensors[0]) // self.size

    def __iter__(self):
        memory = [each[: self.size].clone() for each in self.tensors]
        for parts in zip(*(each.split(self.size) for each in self.tensors), strict=True):
            for place, part in zip(memory, parts, strict=True):
                place.copy_(part)
            yield memory[0] if len(memory) == 1 else tuple(memory)


def test_batches_that_lie_in_the_same_memory_are_mixed_as_others():
    images, labels, more = numbered(0, 12), torch.arange(12) % 10, numbered(12, 48)
    known, others = Refilled(images, labels, size=4), Refilled(more, size=4)
    batches = list(Mixture(known, others, first_digit, classes=10, batches=(4, 4)))
    values = torch.cat([each[:, 0, 0, 0] for each, _ in batches])
    assert values.sort().values.allclose(torch.arange(60) / 1000)


def test_images_that_are_left_out_never_come():
    known = [(numbered(0, 10), torch.full((10,), 9))]
    more = [numbered(10, 50), numbered(60, 50)]

    def even(images):
        return (images[:, 0, 0, 0] * 1000).round() % 2 == 0

    batches = list(Mixture(known, more, first_digit, classes=10, batches=(10, 50), keep=even, dropped=50))
    values = torch.cat([images[:, 0, 0, 0] for images, _ in batches]).mul(1000).round().int().tolist()
    assert sorted(values) == [*range(10), *range(10, 110, 2)]


def test_soft_labels_are_joined_by_certain_ones():
    _, labels = next(iter(mixture(20, 20, 8, soft=True)))
    assert labels.shape == (8, 10)
    assert labels.sum(1).tolist() == [1.0] * 8


def test_both_orders_are_drawn_again_from_saved_states():
    source = mixture(60, 140, 16, shuffle=True)
    for number, loader in enumerate(source.loaders):
        loader.generator = torch.Generator().manual_seed(number)
    states = random_states(source)
    before = torch.cat([images for images, _ in source])
    other = torch.cat([images for images, _ in source])
    restore_random_states(states, source)
    again = torch.cat([images for images, _ in source])
    assert torch.equal(before, again)
    assert not torch.equal(before, other)


class Noisy(TensorDataset):
    """Images that are read with noise from torch's global generator."""

    def __getitem__(self, row):
        image, *label = super().__getitem__(row)
        return image + torch.rand(()), *label


@pytest.mark.parametrize("alone", [False, True])
def test_images_read_ahead_do_not_depend_on_what_is_drawn_in_between(alone):
    labelled = DataLoader(Noisy(numbered(0, 30), torch.zeros(30, dtype=torch.long)), 10, shuffle=True)
    more, sizes = DataLoader(Noisy(numbered(30, 60)), 20, shuffle=True), (10, 20)
    kind = AllImages if alone else partial(Mixture, label=lambda images: torch.ones(len(images)).long(), classes=2)
    source = kind(labelled, more, batches=sizes)

    def images(batch):
        return batch if alone else batch[0]

    states = random_states(source)
    before = [(images(batch), torch.rand(3))[0] for batch in source]
    restore_random_states(states, source)
    assert all(torch.equal(images(again), batch) for again, batch in zip(source, before, strict=True))
    assert not torch.equal(images(next(iter(source))), before[0])
    assert len({round(float(value), 5) for batch in before for value in (batch[:, 0, 0, 0] * 1000) % 1}) > 80


def test_images_of_both_loaders_come_without_labels_once_an_epoch():
    labelled = [{"images": numbered(0, 4), "labels": "none"}, {"images": numbered(4, 4), "labels": "none"}]
    batches = list(AllImages(labelled, DataLoader(TensorDataset(numbered(8, 17)), 5), batches=(4, 5)))
    assert torch.cat(batches)[:, 0, 0, 0].mul(1000).round().long().sort().values.tolist() == [*range(25)]
    assert {len(batch) for batch in batches[:-1]} == {4}


def test_epochs_are_passed_on_to_samplers():
    seen = []

    class Sampled(list):
        def set_epoch(self, epoch):
            seen.append(epoch)

    batches = Sampled([(numbered(0, 4), torch.zeros(4, dtype=torch.long))])
    Mixture(batches, Sampled([numbered(4, 4)]), first_digit, classes=10, batches=(4, 4)).set_epoch(3)
    Labelled(batches, first_digit).set_epoch(4)
    assert seen == [3, 3, 4]


def test_images_that_do_not_fit_are_refused():
    known = [(numbered(0, 4), torch.zeros(4, dtype=torch.long))]

    def mixed(more, labelled=known):
        return list(Mixture(labelled, more, first_digit, classes=10, batches=(4, 4)))

    with pytest.raises(
        ValueError, match=r"unlabeled_loader have shape \(1, 3, 3\) and .*but those of the loader \(1, 2, 2\)"
    ):
        mixed([torch.rand(4, 1, 3, 3)])
    with pytest.raises(
        ValueError, match=r"type torch\.uint8, but those of the loader .* use the same transform in both"
    ):
        mixed([torch.zeros(4, 1, 2, 2, dtype=torch.uint8)])
    with pytest.raises(ValueError, match="batch 1 of unlabeled_loader: images hold NaN"):
        mixed([torch.full((4, 1, 2, 2), torch.nan)])
    with pytest.raises(ValueError, match="batch 1: label 10 is out of range"):
        mixed([numbered(0, 4)], [(numbered(0, 4), torch.full((4,), 10))])
    with pytest.raises(ValueError, match="the unlabeled_loader does not say how many batches it has"):
        mixed(numbered(0, 4) for _ in range(2))


def test_a_loader_that_is_empty_later_is_refused():
    class Once(list):
        def __iter__(self):
            yield from list(super().__iter__())
            self.clear()

    more = Once([numbered(0, 4)])
    with pytest.raises(
        ValueError, match="the unlabeled_loader had no batch: it must yield its batches again each time"
    ):
        list(
            Mixture([(numbered(0, 4), torch.zeros(4).long())], more, first_digit, classes=10, batches=(4, 4), share=0.9)
        )


def test_a_loader_of_images_alone_is_labelled():
    for form in (numbered(0, 4), (numbered(0, 4),), (numbered(0, 4), torch.ones(4)), {"image": numbered(0, 4)}):
        ((images, labels),) = Labelled([form], first_digit)
        assert torch.equal(images, numbered(0, 4))
        assert labels.tolist() == [0] * 4
