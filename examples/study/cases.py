"""What the studies train on: a setting (a model, an adversary, images), some of their labels, a seed.

A search runs in the four settings of SEARCHED: a small CNN and a small ViT on 10,000 images of Fashion-MNIST, in both norms. The
others check what it chose: on six times the images, on handwritten digits, on colour photographs (photographs.py), with the
smaller radii that are customary at 32 px, with a mobile net, and with a net that has ImageNet's weights (imagenet.py).
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

import robusttune
from examples.images import SIDE, digits, fashion_mnist, first
from examples.ordinary import new_model, train
from examples.study import imagenet
from examples.study.clothes import pairs, two_classes
from examples.study.photographs import PHOTOGRAPHS, photographs
from robusttune.run.settings import shown_radius

IMAGES, TEST, BATCH = 10_000, 1_000, 128  # TEST: at most
STEPS = 6 * IMAGES // BATCH  # of hardening, unless a setting or a study says otherwise
FIRST_STEPS = 400  # of ordinary training before it
PRETRAINING = 4  # epochs over all images
PRETRAINING_RATE = {"test_resnet": 0.1}  # the ViT takes the default of its optimiser: this rate ruined it


class Setting(NamedTuple):
    """A model, an adversary and images.

    Attributes:
        model: timm's name.
        norm, eps: of the adversary.
        data: a key of DATA.
        train, test: how many images.
        side: of the images.
        length: of ordinary training and of hardening, as a multiple of FIRST_STEPS and of STEPS.
    """

    model: str
    norm: str
    eps: float
    data: str = "Fashion-MNIST"
    train: int = IMAGES
    test: int = TEST
    side: int = SIDE
    length: float = 1.0

    @property
    def steps(self) -> int:
        """The steps of hardening."""
        return round(STEPS * self.length)

    @property
    def title(self) -> str:
        """The setting in words, for tables."""
        usual = (self.data, self.train) == ("Fashion-MNIST", IMAGES)
        where = "" if usual else f", {self.data}, {self.train:,} images of {self.side} px"
        return f"{self.model}, {self.norm} {shown_radius(self.eps)}{where}"

    def new(self) -> nn.Module:
        """The model with random weights."""
        return new_model(self.model, DATA[self.data].channels, DATA[self.data].classes, self.side)


class Data(NamedTuple):
    """Images of a kind: (setting) -> those for training and those for testing."""

    read: Callable[[Setting], tuple[Dataset, Dataset]]
    channels: int
    classes: int


DATA = {
    "Fashion-MNIST": Data(lambda setting: fashion_mnist(), 1, 10),
    "digits": Data(lambda setting: digits(), 1, 10),
    "two classes": Data(lambda setting: two_classes(), 1, 2),
    "pairs": Data(lambda setting: pairs(), 1, 100),
    "photographs": Data(
        lambda setting: photographs(setting.side, train=setting.train, test=setting.test), 3, len(PHOTOGRAPHS)
    ),
}
SEARCHED = {
    "cnn-linf": Setting("test_resnet", "linf", 0.1),
    "cnn-l2": Setting("test_resnet", "l2", 1.0),
    "vit-linf": Setting("test_vit", "linf", 0.1),
    "vit-l2": Setting("test_vit", "l2", 1.0),
}
SETTINGS = SEARCHED | {
    "cnn-linf-8": Setting("test_resnet", "linf", 8 / 255),
    "cnn-l2-0.5": Setting("test_resnet", "l2", 0.5),
    "vit-linf-8": Setting("test_vit", "linf", 8 / 255),
    "vit-l2-0.5": Setting("test_vit", "l2", 0.5),
    "fashion-60000-linf": Setting("test_resnet", "linf", 0.1, train=60_000, length=6),
    "digits-linf": Setting("test_resnet", "linf", 0.1, "digits", train=1_297, test=500),
    "digits-l2": Setting("test_resnet", "l2", 1.0, "digits", train=1_297, test=500),
    "photographs-linf": Setting("test_resnet", "linf", 8 / 255, "photographs", train=4_000),
    "photographs-l2": Setting("test_resnet", "l2", 0.5, "photographs", train=4_000),
    "mobile-linf": Setting("mobilenetv3_small_050", "linf", 0.1),
    "resnet-l2": Setting("resnet10t", "l2", 1.0),
    "imagenet-linf": Setting(imagenet.MODEL, "linf", 4 / 255, "photographs", 2_000, test=256, side=96, length=0.2),
    "imagenet-l2": Setting(imagenet.MODEL, "l2", 1.0, "photographs", 2_000, test=256, side=96, length=0.2),
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
        """A model trained ordinarily on these images; if pretrained, first its backbone on rotation and jigsaw over all images."""
        torch.manual_seed(self.seed)
        model = self.setting.new()
        if self.setting.model == imagenet.MODEL:
            imagenet.load(model)
        if pretrained:
            robusttune.pretrain(
                model,
                self.loader(self.images),
                epochs=PRETRAINING,
                lr=PRETRAINING_RATE.get(self.setting.model),
                seed=self.seed,
                device="cpu",
                progress=False,
            )
        return self.trained(model, images)

    def trained(self, model: nn.Module, images: Dataset) -> nn.Module:
        """The model after ordinary training in place on these images."""
        loader = self.loader(images)
        return train(model, loader, max(1, round(self.setting.length * FIRST_STEPS / len(loader))), progress=False)

    def hardened(self, model: nn.Module, images: Dataset, *, batch: int = BATCH, **settings: object) -> nn.Module:
        """The model after the setting's steps of the fast recipe, or what the settings say otherwise."""
        chosen = {"preset": "fast", "tasks": None, "epochs": 10_000, "max_steps": self.setting.steps, "tune": False}
        chosen["device"] = "cpu"  # seconds are of the processor; judges use an accelerator where there is one
        chosen |= {"norm": self.setting.norm, "eps": self.setting.eps, **settings}
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
def case(setting: str, labels: int | None, seed: int) -> Case:
    """The data of a run; the seed draws which images have labels, unless all have (labels: None)."""
    known = SETTINGS[setting]
    images = _images(known)
    if labels is None or labels >= known.train:
        return Case(known, images, images, Subset(images, []), seed)
    order = torch.randperm(known.train, generator=torch.Generator().manual_seed(seed)).tolist()
    return Case(known, images, Subset(images, order[:labels]), Subset(images, order[labels:]), seed)


@lru_cache(maxsize=2)
def unseen(setting: str, images: int | None = None) -> DataLoader:
    """A loader of the first images for testing, of Fashion-MNIST the official test set's; no run trains on them or chooses its epoch by them."""
    known = SETTINGS[setting]
    # An attack of the small CNN goes through 125 images at a time a fifth faster than through 250, on one core.
    return DataLoader(first(_read(known)[1], min(known.test, images or TEST)), 125 if images else 250)


@lru_cache(maxsize=1)
def _images(setting: Setting) -> Dataset:
    return first(_read(setting)[0], setting.train)


@lru_cache(maxsize=1)
def _read(setting: Setting) -> tuple[Dataset, Dataset]:
    return DATA[setting.data].read(setting)
