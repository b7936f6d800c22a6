"""Loaders as users have them: they are trained on and measured as a plain loop would, or refused in words."""

from functools import partial

import pytest
import torch
from guarded import hardened
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, TensorDataset

import robusttune
from robusttune.evaluations.sanity import sanity


def some_images(count):
    return TensorDataset(
        torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(count) % 10
    )


class Unsized:
    """Batches without a length, as webdataset's loaders."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


class Stream(IterableDataset):
    """A data set without a length, whose DataLoader has a `__len__` that raises."""

    def __iter__(self):
        return iter([(torch.rand(1, 8, 8), number % 10) for number in range(64)])


def normalised_by_batch():
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)]
    return nn.Sequential(*layers)


def flat(*, seen=None):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    if seen is not None:
        model.register_forward_pre_hook(lambda module, images: seen.append(len(images[0])) if module.training else None)
    return model


def epochs_of(model, loader, **settings):
    """Facts of the epochs of a run."""
    facts = []
    hardened(model, loader, norm="l2", on_epoch=facts.append, **settings)
    return facts


# The last group of accumulated batches


@pytest.mark.parametrize(
    "loader",
    [DataLoader(some_images(32), 8), DataLoader(some_images(33), 8), Unsized(list(DataLoader(some_images(24), 8)))],
    ids=["a length", "a last batch of one image", "no length"],
)
def test_the_last_group_of_accumulated_batches_is_a_step(loader):
    model = normalised_by_batch()
    before = model[0].weight.clone()
    facts = epochs_of(model, loader, accumulate=8, ema=0, lr=0.1, epochs=3)
    assert [each["step"] for each in facts] == [1, 2, 3]
    assert not torch.equal(model[0].weight, before)


def test_a_loader_without_a_length_trains_as_one_that_has_one():
    batches = list(DataLoader(some_images(40), 8))
    trained = [hardened(flat_copy(), each, accumulate=3, epochs=2, max_steps=4) for each in (batches, Unsized(batches))]
    assert torch.equal(trained[0][1].weight, trained[1][1].weight)


def flat_copy():
    torch.manual_seed(0)
    return flat()


class Stopped(Unsized):
    """Stops after this many batches in all."""

    def __init__(self, batches, after):
        super().__init__(batches)
        self.after = after

    def __iter__(self):
        for batch in self.batches:
            if not self.after:
                raise InterruptedError
            self.after -= 1
            yield batch


@pytest.mark.sample(2)
@pytest.mark.parametrize("after", [6, 9, 11])
@pytest.mark.parametrize("step", [{"accumulate": 2}, {"update_batch": 3}], ids=str)
def test_a_run_over_an_unknown_length_resumes_exactly(after, step, tmp_path):
    batches = list(DataLoader(some_images(40), 8))
    settings = {**step, "epochs": 3, "checkpoint_every": 1}
    whole = hardened(flat_copy(), Unsized(batches), **settings)
    with pytest.raises(InterruptedError):
        hardened(flat_copy(), Stopped(batches, after), out=tmp_path / "run", **settings)
    resumed = hardened(flat_copy(), Unsized(batches), out=tmp_path / "run", resume=True, **settings)
    assert torch.equal(resumed[1].weight, whole[1].weight)


def test_a_last_part_of_one_image_is_left_out_before_batch_norm():
    assert epochs_of(normalised_by_batch(), DataLoader(some_images(33), 8), update_batch=4)[-1]["step"] == 8


def test_images_for_the_pretext_losses_alone_come_in_as_many_parts():
    seen, model = [], flat()
    model.register_forward_pre_hook(lambda module, images: seen.append(len(images[0])) if module.training else None)
    unlabeled = [batch[0] for batch in DataLoader(some_images(32), 16)]
    settings = {"tasks": {"rotation": 0.5}, "attack_tasks": "none", "teacher": None, "update_batch": 4}
    assert epochs_of(model, DataLoader(some_images(32), 8), unlabeled_loader=unlabeled, **settings)[-1]["step"] == 8
    assert set(seen) == {4, 8}  # labelled, others


def test_a_run_whose_time_is_over_before_its_first_group_takes_one_step():
    facts = epochs_of(flat(), DataLoader(some_images(32), 8), accumulate=4, time_budget=1e-6)
    assert facts[-1]["step"] == 1


@pytest.mark.filterwarnings("ignore:.*withstood the attack, which is no more")  # of a run this short
def test_a_last_unlabelled_batch_of_one_image_is_left_out_before_batch_norm():
    unlabeled = [batch[0] for batch in DataLoader(some_images(33), 8)]
    settings = {"tasks": {"rotation": 0.5}, "attack_tasks": "none", "epochs": 2, "teacher": None}
    model, labelled = normalised_by_batch(), DataLoader(some_images(64), 8)
    assert epochs_of(model, labelled, unlabeled_loader=unlabeled, **settings)[-1]["step"] == 16
    with pytest.raises(
        ValueError, match="the batches of the unlabeled_loader hold one image each, which batch norm can"
    ):
        hardened(model, labelled, unlabeled_loader=unlabeled[-1:], **settings)


# What a rebuilt loader must not forget

DATA = some_images(1000)


@pytest.mark.parametrize(
    ("sampler", "steps"),
    [
        (RandomSampler(DATA, num_samples=200), 4),
        (RandomSampler(DATA, replacement=True, num_samples=2000), 40),
        (RandomSampler(DATA), 19),
    ],
    ids=["fewer", "with replacement", "all"],
)
def test_an_epoch_is_as_long_as_the_sampler_says(sampler, steps):
    assert epochs_of(flat(), DataLoader(DATA, 50, sampler=sampler), update_batch=None)[-1]["step"] == steps


@pytest.mark.parametrize("shuffle", [True, False])
def test_incomplete_batches_that_the_loader_drops_are_not_trained_on(shuffle):
    seen = []
    hardened(flat(seen=seen), DataLoader(DATA, 64, shuffle=shuffle, drop_last=True))
    assert set(seen) == {32}


# Lengths that raise


@pytest.mark.parametrize(
    "door",
    [
        lambda loader: hardened(flat(), loader),
        lambda loader: hardened(flat(), DATA_LOADER, val_loader=loader),
        lambda loader: robusttune.evaluate(flat(), loader, "clean"),
        lambda loader: robusttune.evaluate(flat(), loader, "clean", subset=20),
        lambda loader: robusttune.pretrain(normalised_by_batch(), loader, epochs=1, progress=False),
        lambda loader: robusttune.estimate(flat(), loader, tasks=None, max_steps=4),
    ],
    ids=["harden", "val_loader", "evaluate", "subset", "pretrain", "estimate"],
)
def test_a_length_that_raises_is_an_unknown_length(door):
    loader = DataLoader(Stream(), 16)
    with pytest.raises(TypeError):
        len(loader)
    assert door(loader) is not None


DATA_LOADER = DataLoader(some_images(32), 8)


# Batches of several sizes


class AnySize(nn.Sequential):
    """A model for images of any size, whose answers vary."""

    def __init__(self):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            super().__init__(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
            self[-1].weight.data *= 100
            self[-1].bias.data -= self(torch.rand(32, 3, 32, 32)).mean(0).detach()


def batches_of_sizes(*sizes):
    model, generator = AnySize(), torch.Generator().manual_seed(0)
    pictures = [torch.rand(16, 3, *size, generator=generator) for size in sizes]
    return [(images, model(images).argmax(1)) for images in pictures]


@pytest.mark.parametrize(
    "name", ["clean", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sweep", "strong"))]
)
def test_images_of_several_sizes_are_measured_as_those_of_each_size_are(name, tmp_path):
    batches = batches_of_sizes((32, 32), (40, 24), (32, 32))
    settings = {"norm": "l2", "eps": 0.05, "progress": False}
    mixed = robusttune.evaluate(AnySize(), batches, name, out=tmp_path / "run", **settings)
    alone = [robusttune.evaluate(AnySize(), [batch], name, **settings) for batch in batches]
    for number, record in enumerate(mixed):
        assert record.value == pytest.approx(sum(each[number].value for each in alone) / 3)
    assert name == "clean" or any(0 < record.value < 1 for record in mixed)
    kept = robusttune.Records.load(tmp_path / "run" / "records.jsonl").failures
    assert [failure.image.tolist() for failure in kept] == [failure.image.tolist() for failure in mixed.failures]
    assert [failure.found.shape for failure in kept] == [failure.image.shape for failure in mixed.failures]
    assert name == "clean" or len({failure.image.shape for failure in kept}) == 2


@pytest.mark.slow
def test_sanity_checks_images_of_the_first_size():
    records = robusttune.evaluate(
        AnySize(), batches_of_sizes((32, 32), (40, 24), (32, 32)), partial(sanity, steps=2), progress=False
    )
    assert {record.images for record in records} == {32}


@pytest.mark.parametrize("augment", ["standard", "augmix", "prime", "noise"])
def test_every_augmentation_takes_images_of_several_sizes(augment):
    seen = []
    model = AnySize()
    model.register_forward_pre_hook(lambda module, images: seen.append(tuple(images[0].shape[2:])))
    hardened(model, batches_of_sizes((32, 32), (40, 24)), augment=augment)
    assert set(seen) == {(32, 32), (40, 24)}
