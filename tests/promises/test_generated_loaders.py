"""Generated loaders: `evaluate` gives the number of a plain loop or refuses, and `harden` trains on a plain loop's batches."""

import math

import pytest
import torch
from guarded import hardened
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    WeightedRandomSampler,
)
from torchvision.transforms import v2

import robusttune

CLASSES = 4
MEAN, STD = 0.4, 0.3


class Shades(nn.Module):
    """Reads the class from the mean brightness of an image, whose pixels the loader has divided and normalised."""

    def __init__(self, mean=0.0, std=1.0):
        super().__init__()
        self.mean, self.std, self.seen = mean, std, []
        centres = (torch.arange(CLASSES) + 0.5) / CLASSES
        self.nearest = nn.Linear(1, CLASSES)
        self.nearest.weight.data, self.nearest.bias.data = 80 * centres[:, None], -40 * centres.square()

    def forward(self, images):
        if self.training:
            self.seen.append(len(images))
        brightness = (images * self.std + self.mean).mean((1, 2, 3))
        return self.nearest(brightness[:, None])


class Pictures(Dataset):
    """Images of a shade that says their class, through a transform; some labels are wrong."""

    def __init__(self, count, wrong, transform, labelled):
        self.count, self.wrong, self.transform, self.labelled = count, wrong, transform, labelled

    def __len__(self):
        return self.count

    def __getitem__(self, row):
        label = row % CLASSES
        image = torch.full((1, 6, 6), (label + 0.5) / CLASSES)
        image[0, 0, :2] = torch.tensor([0.0, 1.0])  # every batch has black and white
        answer = (label + 1) % CLASSES if row in self.wrong else label
        return self.labelled(self.transform(image), answer)


class Stream(IterableDataset):
    def __init__(self, data):
        self.dataset = data

    def __iter__(self):
        return (self.dataset[row] for row in range(len(self.dataset)))


class Unsized:
    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def raw(white, *steps):
    """Raw values up to `white`, and steps that follow."""
    return v2.Compose([v2.Lambda(lambda image: image * white), *steps])


normalize = v2.Normalize([MEAN], [STD])
# How images are stored, by name: the transform, the mean and std of the model's input, arguments of evaluate.
PIXELS = (0.0, 1.0)
STORED = {
    "float32": (raw(1.0), PIXELS, {}),
    "float64": (v2.ToDtype(torch.float64), PIXELS, {}),
    "float16": (v2.ToDtype(torch.float16), PIXELS, {}),
    "bfloat16": (v2.ToDtype(torch.bfloat16), PIXELS, {}),
    "uint8": (raw(255.0, v2.ToDtype(torch.uint8)), PIXELS, {}),
    "normalised": (normalize, (MEAN, STD), {}),
    "normalised, without a Normalize": (normalize.forward, (MEAN, STD), {"mean": MEAN, "std": STD}),
    "normalised twice": (v2.Compose([normalize, v2.Normalize([0.5], [2.0])]), (MEAN + STD * 0.5, STD * 2), {}),
    "scaled by 255": (raw(255.0, v2.Normalize([0.0], [255.0])), PIXELS, {}),
    "scaled by 65535": (raw(65535.0, v2.Normalize([0.0], [65535.0])), PIXELS, {}),
    "scaled and normalised": (raw(255.0, v2.Normalize([0.0], [255.0]), normalize), (MEAN, STD), {}),
    "raw and normalised at once": (
        raw(255.0, v2.Normalize([MEAN * 255], [STD * 255])),
        (MEAN, STD),
        {"mean": MEAN, "std": STD},
    ),
}
REFUSED = {
    "raw floats": (raw(255.0), PIXELS, {}),
    "16-bit floats": (raw(65535.0), PIXELS, {}),
    "int32": (raw(255.0, v2.ToDtype(torch.int32)), PIXELS, {}),
    "uint16": (raw(65535.0, v2.Lambda(lambda image: image.int().to(torch.uint16))), PIXELS, {}),
    "overshoot": (v2.Lambda(lambda image: image * 1.1 - 0.05), PIXELS, {}),
    "overshoot, mean known": (v2.Lambda(lambda image: image * 1.1 - 0.05), (MEAN, STD), {"mean": MEAN, "std": STD}),
    "raw and normalised": (raw(255.0, v2.Normalize([MEAN * 255], [STD * 255])), (MEAN, STD), {}),
    "normalised, unknown": (normalize.forward, (MEAN, STD), {}),
    "normalised in units of raw values": (normalize.forward, (MEAN, STD), {"mean": MEAN * 255, "std": STD * 255}),
}
LABELLED = {
    "pair": lambda image, label: (image, label),
    "triple": lambda image, label: (image, label, "file.png"),
    "dict": lambda image, label: {"pixel_values": image, "labels": label},
    "other dict": lambda image, label: {"target": label, "img": image, "index": 3},
    "int32": lambda image, label: (image, torch.tensor(label, dtype=torch.int32)),
    "column": lambda image, label: [image, torch.tensor([label])],
    "soft": lambda image, label: (image, nn.functional.one_hot(torch.tensor(label), CLASSES).float()),
}
ORDERED = {
    "in order": lambda data, size: DataLoader(data, size),
    "drop_last": lambda data, size: DataLoader(data, size, drop_last=True),
    "batch sampler": lambda data, size: DataLoader(
        data, batch_sampler=BatchSampler(SequentialSampler(data), size, drop_last=False)
    ),
    "part": lambda data, size: DataLoader(data, size, sampler=SequentialSampler(range(len(data) // 2))),
    "list": lambda data, size: list(DataLoader(data, size)),
    "tuple": lambda data, size: tuple(DataLoader(data, size)),
    "no length": lambda data, size: Unsized(list(DataLoader(data, size))),
    "stream": lambda data, size: DataLoader(Stream(data), size),
    "whole batches": lambda data, size: DataLoader(list(DataLoader(data, size)), batch_size=None),
}
HIDDEN = ("list", "tuple", "no length", "whole batches")  # in which no transform can be seen
DRAWN = {
    "shuffled": lambda data, size: DataLoader(data, size, shuffle=True),
    "fewer": lambda data, size: DataLoader(data, size, sampler=RandomSampler(data, num_samples=len(data) // 2)),
    "with replacement": lambda data, size: DataLoader(
        data, size, sampler=RandomSampler(data, replacement=True, num_samples=2 * len(data))
    ),
    "weighted": lambda data, size: DataLoader(data, size, sampler=WeightedRandomSampler([1.0] * len(data), len(data))),
}
counts, sizes, names = st.integers(8, 40), st.integers(1, 16), st.sampled_from


def unpacked(batch):
    """Images as the model takes them, and class numbers, as a loop of one's own would read a batch."""
    images, labels = (
        (batch.get("pixel_values", batch.get("img")), batch.get("labels", batch.get("target")))
        if isinstance(batch, dict)
        else batch[:2]
    )
    images = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    return images, labels.argmax(1) if labels.is_floating_point() else labels.flatten()


def by_hand(model, loader):
    """The number of images that are right, and of all images."""
    right = total = 0
    for images, labels in map(unpacked, loader):
        right += int((model(images).argmax(1) == labels).sum())
        total += len(labels)
    return right, total


@pytest.mark.slow
@settings(max_examples=150)
@given(
    names(sorted(STORED)), names(sorted(LABELLED)), names(sorted(ORDERED)), counts, sizes, st.sets(st.integers(0, 39))
)
def test_accuracy_is_that_of_a_plain_loop(stored, labelled, ordered, count, size, wrong):
    transform, space, arguments = STORED[stored]
    loader = ORDERED[ordered](Pictures(count, wrong, transform, LABELLED[labelled]), min(size, count // 2))
    model = Shades(*space).eval()
    right, total = by_hand(model, loader)
    if ordered in HIDDEN and space != PIXELS and not arguments:
        with pytest.raises(
            ValueError, match=r"eps is in pixel units on \[0, 1\]: .*pass mean=… and std=… of your Normalize"
        ):
            robusttune.evaluate(model, loader, "clean", progress=False)
        return
    record = robusttune.evaluate(model, loader, "clean", progress=False, **arguments)[0]
    assert (round(record.value * record.images), record.images) == (right, total)


@given(names(sorted(STORED)), names(sorted(DRAWN)), counts, sizes, st.none() | st.integers(1, 50))
def test_a_model_that_is_always_right_has_accuracy_one(stored, drawn, count, size, subset):
    transform, space, arguments = STORED[stored]
    loader = DRAWN[drawn](Pictures(count, (), transform, LABELLED["pair"]), size)
    record = robusttune.evaluate(Shades(*space), loader, "clean", subset=subset, progress=False, **arguments)[0]
    assert record.value == 1
    assert record.images == min(by_hand(Shades(*space), loader)[1], subset or math.inf)


@given(names(sorted(REFUSED)), names(sorted(ORDERED | DRAWN)), counts, sizes)
def test_what_cannot_be_pixels_is_refused(stored, kind, count, size):
    transform, space, arguments = REFUSED[stored]
    loader = (ORDERED | DRAWN)[kind](Pictures(count, (), transform, LABELLED["pair"]), min(size, count // 2))
    for door in (robusttune.evaluate, robusttune.harden):
        with pytest.raises(
            ValueError, match=r"eps is in pixel units|floats or uint8|outside \[0, 1\]|of pixels on|may be"
        ):
            door(Shades(*space), loader, progress=False, **arguments)


@pytest.mark.slow
@given(names(sorted(LABELLED)), names(sorted(ORDERED | DRAWN)), counts, sizes, st.integers(1, 5))
def test_training_is_on_the_batches_of_a_plain_loop(labelled, kind, count, size, accumulate):
    loader = (ORDERED | DRAWN)[kind](Pictures(count, (), raw(1.0), LABELLED[labelled]), min(size, count // 2))
    wanted = [len(images) for images, _ in map(unpacked, loader)]
    model, facts = Shades(), []
    hardened(model, loader, epochs=2, accumulate=accumulate, on_epoch=facts.append, augment="none", eps=0.01)
    assert model.seen == wanted * 2
    assert [each["step"] for each in facts] == [math.ceil(len(wanted) / accumulate) * epoch for epoch in (1, 2)]
