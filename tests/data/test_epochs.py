"""Batches, and their parts where a step is to see fewer images than the loader yields at once."""

import pytest
import torch
from pretend_device import Copies
from torch.utils.data import DataLoader, TensorDataset

from robusttune.data.epochs import Batches


def numbered(count):
    return TensorDataset(torch.arange(count).float()[:, None, None, None].expand(-1, 1, 2, 2), torch.arange(count))


@pytest.mark.parametrize(
    ("count", "most", "sizes"),
    [
        (16, 4, [4, 4, 4, 4]),
        (20, 4, [4, 4, 4, 4, 4]),
        (19, 5, [4, 4, 4, 4, 3]),
        (16, 8, [8, 8]),
        (16, 99, [8, 8]),
        (17, 4, [4, 4, 4, 4, 1]),
    ],
    ids=str,
)
@pytest.mark.parametrize("sized", [True, False])
def test_parts_hold_each_image_once_and_are_counted(count, most, sizes, sized):
    loader = DataLoader(numbered(count), 8)
    batches = Batches(loader if sized else list(loader))
    batches.first()
    batches.cut(most)
    parts = list(batches.epoch(0))
    assert [len(images) for images, _ in parts] == sizes
    if sized:
        assert batches.count == len(parts)
    assert sorted(torch.cat([labels for _, labels in parts]).tolist()) == list(range(count))
    assert all(torch.equal(images[:, 0, 0, 0], labels.float()) for images, labels in parts)


def test_an_iterators_first_batch_is_cut_too():
    batches = Batches(iter(list(DataLoader(numbered(16), 8))))
    batches.first()
    batches.cut(4)
    assert [labels.tolist() for _, labels in batches.epoch(0)][:2] == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_each_part_has_its_share_of_the_images_at_the_batchs_end():
    images, labels = torch.rand(8, 1, 2, 2), torch.tensor([0, 0, 1, 1, 1, 1, 1, 1])
    batches = Batches([(images, labels)])
    batches.first()
    batches.cut(4)
    assert [sorted(labels.tolist()) for _, labels in batches.epoch(0)] == [[0, 1, 1, 1], [0, 1, 1, 1]]


def test_a_batch_is_copied_to_a_device_whole_and_once_before_it_is_cut(accelerator):
    batches = Batches(DataLoader(numbered(20), 8))
    batches.first()
    batches.cut(3)
    with Copies() as copies:
        there = list(batches.epoch(0, device=accelerator))
    whole = [((8, 1, 2, 2), True), ((8,), True)]
    assert [(copy.shape, copy.contiguous) for copy in copies.noted] == whole * 2 + [((4, 1, 2, 2), True), ((4,), True)]
    assert all(copy.waits is False for copy in copies.noted)
    for (images, labels), (here, expected) in zip(there, batches.epoch(0), strict=True):
        assert images.device == labels.device == accelerator
        assert torch.equal(images.cpu(), here)
        assert torch.equal(labels.cpu(), expected)


def test_batches_that_are_not_cut_stay_where_they_are(accelerator):
    batches = Batches(DataLoader(numbered(20), 8))
    with Copies() as copies:
        assert {images.device.type for images, _ in batches.epoch(0, device=accelerator)} == {"cpu"}
    assert not copies.noted


def test_on_the_cpu_parts_are_views_of_the_loaders_batch():
    whole = [torch.rand(8, 1, 2, 2), torch.arange(8)]
    batches = Batches([whole])
    batches.first()
    batches.cut(4)
    parts = list(batches.epoch(0, device=torch.device("cpu")))
    assert [images.data_ptr() for images, _ in parts] == [whole[0][number].data_ptr() for number in range(2)]


def test_labels_are_checked_before_a_batch_is_cut():
    batches = Batches([(torch.rand(8, 1, 2, 2), torch.arange(8))])
    batches.first()
    batches.cut(4)
    with pytest.raises(ValueError, match="batch 1 of epoch 3: label 7 is out of range: the model has 5 classes"):
        next(batches.epoch(2, classes=5))
