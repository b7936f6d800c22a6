"""What the studies train on: a setting (a model and an adversary) on Fashion-MNIST, some of its labels, a seed."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

import robusttune
from examples.images import SIDE, fashion_mnist, first
from examples.ordinary import new_model, train

IMAGES, TEST, BATCH = 10_000, 1_000, 128
STEPS = 6 * IMAGES // BATCH  # of hardening, unless a study says otherwise
FIRST_STEPS = 400  # of ordinary training before it
PRETRAINING = 4  # epochs over all images


class Setting(NamedTuple):
    """A model and an adversary."""

    model: str
    norm: str
    eps: float

    def new(self) -> nn.Module:
        """The model with random weights."""
        return new_model(self.model, 1, 10, SIDE)


SETTINGS = {
    "cnn-linf": Setting("test_resnet", "linf", 0.1),
    "cnn-l2": Setting("test_resnet", "l2", 1.0),
    "vit-linf": Setting("test_vit", "linf", 0.1),
    "vit-l2": Setting("test_vit", "l2", 1.0),
}


class Case(NamedTuple):
    """All images with labels, those whose labels are used, the others (with labels that nobody looks at), and a seed."""

    setting: Setting
    images: Dataset
    labelled: Dataset
    unlabelled: Dataset
    seed: int

    def loader(self, images: Dataset, batch: int = BATCH) -> DataLoader:
        """A loader in a random order that the seed draws."""
        return DataLoader(images, batch, shuffle=True, generator=torch.Generator().manual_seed(self.seed))

    def start(self, images: Dataset, *, pretrained: bool = False) -> nn.Module:
        """A model trained ordinarily on these images, its backbone before that on rotation and jigsaw over all images."""
        torch.manual_seed(self.seed)
        model = self.setting.new()
        if pretrained:
            robusttune.pretrain(
                model, self.loader(self.images), epochs=PRETRAINING, lr=0.1, seed=self.seed, progress=False
            )
        loader = self.loader(images)
        return train(model, loader, max(1, round(FIRST_STEPS / len(loader))), progress=False)

    def hardened(self, model: nn.Module, images: Dataset, *, batch: int = BATCH, **settings: object) -> nn.Module:
        """The model after STEPS steps of the fast recipe, or what the settings say otherwise."""
        chosen = {"preset": "fast", "tasks": None, "epochs": 10_000, "max_steps": STEPS, "tune": False, **settings}
        chosen = {"norm": self.setting.norm, "eps": self.setting.eps, **chosen}
        return robusttune.harden(model, self.loader(images, batch), seed=self.seed, progress=False, **chosen)


class Unlabelled(Dataset):
    """Images without their labels."""

    def __init__(self, images: Dataset) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Tensor:
        return self.images[row][0]


@lru_cache(maxsize=1)
def case(setting: str, labels: int, seed: int) -> Case:
    """The data of a run; which images have labels is drawn by the seed."""
    images = first(fashion_mnist()[0], IMAGES)
    if labels >= IMAGES:
        return Case(SETTINGS[setting], images, images, Subset(images, []), seed)
    order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(seed)).tolist()
    return Case(SETTINGS[setting], images, Subset(images, order[:labels]), Subset(images, order[labels:]), seed)


@lru_cache(maxsize=1)
def test_loader() -> DataLoader:
    """The first images of the official test set; no study trains or chooses on them."""
    return DataLoader(first(fashion_mnist()[1], TEST), 250)
