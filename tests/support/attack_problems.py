"""Problems to attack: a small net, and a linear classifier whose nearest adversarial images are known in closed form."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robusttune import plugins
from robusttune.threat import LossOf

SHAPE = (5, 3, 6, 7)
DUAL = {"l2": 2, "linf": 1}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


FOREIGN = ["adv_lib", "foolbox", "torchattacks"]


def attack_named(name):
    if name in FOREIGN:
        with warnings.catch_warnings():  # foolbox imports what scipy has deprecated
            warnings.simplefilter("ignore")
            pytest.importorskip(name)
    return plugins.find("attacks", name)


def some_images(shape=SHAPE, seed=0):
    """Images in [0,1] with pixels at 0 and at 1."""
    return (torch.rand(shape, generator=generator(seed)) * 1.2 - 0.1).clamp(0, 1)


def small_model(channels=3, classes=4):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv = nn.Conv2d(channels, 8, 3, padding=1)
        return nn.Sequential(
            conv, nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(classes)
        )


def small_problem(shape=SHAPE):
    model, images = small_model(shape[1]), some_images(shape)
    labels = torch.arange(len(images)) % 4
    model(images)
    return model, images, classification(model, labels)


def classification(model, labels):
    return LossOf(
        lambda images: F.cross_entropy(model(images), labels, reduction="none"), labels=labels, logits_of=model
    )


class LinearProblem:
    """A linear classifier whose nearest adversarial images are known in closed form; the box is far away."""

    def __init__(self, norm, classes, count, seed):
        chance = generator(seed)
        weights = torch.randn(classes, *SHAPE[1:], generator=chance).flatten(1)
        images = 0.5 + 0.1 * (torch.rand(50, *SHAPE[1:], generator=chance) - 0.5)
        self.logits_of = lambda images: (images - 0.5).flatten(1) @ weights.T
        logits = self.logits_of(images)
        labels = logits.argmax(1)
        margins = logits.gather(1, labels[:, None]) - logits
        slopes = (weights[labels][:, None] - weights[None]).norm(p=DUAL[norm], dim=2)
        distances = (margins / slopes).scatter(1, labels[:, None], torch.inf)
        nearest, targets = distances.min(1)
        rows = nearest.argsort(descending=True)[:count]
        self.images, self.labels, self.targets = images[rows], labels[rows], targets[rows]
        self.distances = nearest[rows].tolist()
        assert max(self.distances) < 0.3

    def margin(self, images):
        """By how much the logit of the nearest class exceeds the right one: (N,)."""
        logits = self.logits_of(images)
        return (logits.gather(1, self.targets[:, None]) - logits.gather(1, self.labels[:, None]))[:, 0]

    def fooled(self, images):
        return self.logits_of(images).argmax(1) != self.labels
