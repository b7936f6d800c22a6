"""Batches, and their parts where a step is to see fewer images than the loader yields at once."""

import pytest
import torch
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
