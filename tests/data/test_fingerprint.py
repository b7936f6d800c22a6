"""The fingerprint of training images: the same for the same images, however they are read, and another one for others."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, SubsetRandomSampler, TensorDataset
from torchvision.datasets import ImageFolder

from robusttune.data.fingerprint import fingerprint_of
from robusttune.data.splits import held_back


def tensors(seed=0, count=40):
    drawn = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.rand(count, 1, 4, 4, generator=drawn), torch.arange(count) % 3)


def folder(place, grey=0, names=("a", "b", "c")):
    for number, name in enumerate(names):
        path = place / "train" / ("cat" if number % 2 else "dog") / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(grey).integers(0, 255, (8, 8 + grey), dtype=np.uint8)).save(path)
    return place / "train"


class Wrapped(Dataset):
    """Another data set's images, with random noise."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        image, label = self.dataset[index]
        return image + random.random(), label


class Held(Dataset):
    """Images in memory, as the data sets of torchvision hold them."""

    def __init__(self, data, targets):
        self.data, self.targets = data, targets

    def __len__(self):
        return len(self.data)


def test_other_images_or_labels_of_the_same_number_have_another_fingerprint():
    first = fingerprint_of(DataLoader(tensors(), 8))
    assert first == fingerprint_of(DataLoader(tensors(), 8, shuffle=True))
    relabelled = TensorDataset(tensors().tensors[0], tensors().tensors[1].roll(1))
    others = [
        tensors(1),
        relabelled,
        Subset(tensors(count=41), range(1, 41)),
        ConcatDataset([tensors(0, 20), tensors(1, 20)]),
    ]
    found = {fingerprint_of(DataLoader(each, 8)) for each in others}
    assert len(found | {first, None}) == len(others) + 2


def test_it_is_of_the_images_that_are_trained_on():
    part = fingerprint_of(DataLoader(Subset(tensors(), range(10)), 5))
    assert part == fingerprint_of(DataLoader(Subset(tensors(count=40), torch.arange(10)), 5))
    assert part == fingerprint_of(DataLoader(tensors(), 5, sampler=SubsetRandomSampler([*range(9, -1, -1)])))
    whole = DataLoader(ConcatDataset([tensors(0, 400), tensors(1, 400)]), 8)
    parts = [fingerprint_of(held_back(whole, 0.2, seed)[0]) for seed in (0, 0, 1)]
    assert parts[0] == parts[1] != parts[2]


def test_files_are_known_by_name_size_and_label_wherever_the_folder_is(tmp_path):
    first, moved, other, renamed = (
        fingerprint_of(DataLoader(ImageFolder(each), 2))
        for each in (
            folder(tmp_path / "x"), folder(tmp_path / "y" / "z"), folder(tmp_path / "w", grey=1),
            folder(tmp_path / "v", names=("a", "b", "d")),
        )
    )  # fmt: skip
    assert first == moved
    assert len({first, other, renamed, None}) == 4


def test_random_augmentation_plays_no_part_and_no_random_number_is_drawn(tmp_path):
    images = ImageFolder(folder(tmp_path))
    before = random.getstate(), torch.get_rng_state()
    assert fingerprint_of(DataLoader(Wrapped(images), 2)) == fingerprint_of(DataLoader(images, 2)) is not None
    assert fingerprint_of(DataLoader(Wrapped(tensors()), 2)) == fingerprint_of(DataLoader(tensors(), 2))
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_labels_are_the_same_in_any_type():
    data = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)
    kinds = [[0, 1, 2, 0, 1], np.array([0, 1, 2, 0, 1], dtype=np.int32), torch.tensor([0, 1, 2, 0, 1])]
    assert len({fingerprint_of(DataLoader(Held(data, each), 2)) for each in kinds} - {None}) == 1
    assert fingerprint_of(DataLoader(Held(data, kinds[0]), 2)) != fingerprint_of(
        DataLoader(Held(data[::-1], kinds[0]), 2)
    )


def test_a_list_of_batches_is_known_in_any_order():
    batches = list(DataLoader(tensors(), 8))
    assert fingerprint_of(batches) == fingerprint_of(list(DataLoader(tensors(), 10, sampler=range(39, -1, -1))))
    assert fingerprint_of(batches) != fingerprint_of(list(DataLoader(tensors(1), 8)))


@pytest.mark.parametrize("loader", [None, [], iter(()), DataLoader(range(3)), [torch.rand(()), 3]])
def test_what_shows_nothing_of_its_images_has_none(loader):
    assert fingerprint_of(loader) is None
