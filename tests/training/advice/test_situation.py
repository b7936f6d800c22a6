"""What is read of models and images."""

import pytest
import timm
import torch
from short_runs import a_loader, a_model, digits
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchvision.datasets import FakeData

from robusttune.training.advice.advise import advise
from robusttune.training.advice.situation import labels_of, situation_of


def test_images_labels_and_classes_are_read():
    found = situation_of(None, a_loader(400, 40))
    assert (found.labels, found.others, found.classes, found.held_back, found.large) == (400, 0, 10, False, False)
    counts = digits(400).tensors[1].bincount().tolist()
    assert found.per_class == (min(counts), max(counts))
    assert dict(found.rows())["image size"] == "1x8x8, grey"
    assert situation_of(None, a_loader(640, 64)).held_back


def test_images_alone_have_no_labels():
    alone = DataLoader(TensorDataset(digits(50).tensors[0]), 20)
    found = situation_of(None, alone, unlabeled_loader=alone)
    assert (found.labels, found.others, found.classes, found.per_class) == (0, 100, None, None)
    assert situation_of(None, a_loader(400, 40), unlabeled_loader=alone, labels=100).others == 350


def test_loaders_without_a_number_of_images():
    def endless():
        while True:
            yield torch.rand(4, 1, 8, 8), torch.arange(4)

    assert situation_of(None, endless()).labels is None
    assert situation_of(None, [(torch.rand(4, 1, 8, 8), torch.arange(4))] * 3).labels == 12


def test_a_model_is_tried_and_stays_as_it_was():
    model = a_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    facts = situation_of(model, a_loader()).model
    assert (facts.patches, facts.batch_norm, facts.classes, facts.trained) == (False, True, 10, False)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    images, labels = digits(400).tensors
    knowing = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(knowing.parameters(), 0.01)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(knowing(images), labels).backward()
        optimizer.step()
    assert situation_of(knowing, a_loader()).model.trained
    assert situation_of(a_model(), a_loader(4, 4)).model.trained is None


def test_the_order_of_the_loaders_stays_as_it_was():
    source = torch.Generator().manual_seed(3)
    loader, more = (torch.utils.data.DataLoader(digits(64), 8, shuffle=True, generator=source) for _ in range(2))
    before = source.get_state()
    situation_of(a_model(), loader, unlabeled_loader=more)
    assert torch.equal(source.get_state(), before)


def test_a_transformer_cuts_patches():
    model = timm.create_model("test_vit", img_size=32, in_chans=1, num_classes=10)
    facts = situation_of(model, [(torch.rand(4, 1, 32, 32), torch.arange(4))]).model
    assert facts.patches
    assert "transformer" in dict(situation_of(model, [(torch.rand(4, 1, 32, 32), torch.arange(4))]).rows())["model"]


def test_labels_are_listed_where_no_image_need_be_read():
    data = digits(10)
    assert labels_of(Subset(data, [3, 1])) == [int(data.tensors[1][3]), int(data.tensors[1][1])]
    assert labels_of(TensorDataset(torch.rand(2, 1), torch.rand(2, 3))) is None  # soft labels
    assert labels_of(FakeData(4)) is None
    assert labels_of(None) is None


class Numbered(TensorDataset):
    """A data set as those of torchvision: labels in `targets`, which a `target_transform` changes."""

    def __init__(self, targets, classes=None, target_transform=None):
        super().__init__(torch.rand(len(targets), 1, 8, 8), torch.tensor(targets))
        self.tensors, self.rows = (), list(zip(self.tensors[0], targets, strict=True))
        self.targets, self.classes, self.target_transform = targets, classes, target_transform

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, row):
        image, label = self.rows[row]
        return image, label if self.target_transform is None else self.target_transform(label)


def test_images_are_counted_by_the_labels_that_training_sees():
    targets = [0] * 5 + [1] * 6 + [2] * 30
    for transform, counts, classes in ((None, (5, 30), 3), (lambda label: label // 2, (11, 30), 2)):
        found = situation_of(None, DataLoader(Numbered(targets, target_transform=transform), 8))
        assert (found.per_class, found.classes) == (counts, classes)
    broken = Numbered(targets, target_transform={"cat": 0}.__getitem__)
    assert labels_of(broken) is None


def test_a_class_without_images_has_none():
    loader = DataLoader(Numbered([0] * 25 + [2] * 30, classes=["cat", "dog", "cow"]), 8)
    assert situation_of(None, loader).per_class == (0, 30)
    assert "some of the 3 classes have no images" in " ".join(advise(None, loader).todo)


def test_more_labels_than_images_are_refused():
    with pytest.raises(ValueError, match=r"labels is 500, but the loader has 400 images: pass how many"):
        situation_of(None, a_loader(), labels=500)
    with pytest.raises(ValueError, match=r"labels is 3, but the loader yields images alone: leave labels out"):
        situation_of(None, [torch.rand(4, 1, 8, 8)], labels=3)
