"""A model that may as well guess is said at the start of a run and at the end of an evaluation, and nothing is touched."""

import logging
import random

import numpy as np
import pytest
import torch
from short_runs import a_loader, a_model, digits, hardened, same, weights_of
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import robusttune
from robusttune.data.pixels import Pixels
from robusttune.measuring.chance import Guess, at_least, first_guess

CHANCE = "images right, which is no more than guessing"


@pytest.mark.parametrize(("right", "images", "share"), [(1, 1, 0.5), (9, 64, 1 / 8), (40, 256, 0.1), (256, 256, 0.99)])
def test_the_binomial_tail_is_that_of_scipy(right, images, share):
    stats = pytest.importorskip("scipy.stats")
    assert at_least(right, images, share) == pytest.approx(stats.binom.sf(right - 1, images, share), rel=1e-9)


@pytest.mark.parametrize(
    ("right", "images", "frequent", "said"),
    [
        (9, 64, 8, True),
        (0, 64, 8, True),  # labels in another order
        (20, 64, 8, False),
        (1, 4, 1, False),  # so few that a good model would not pass
        (6, 40, 2, False),  # one in seven, of twenty classes
        (61, 64, 61, False),  # so uneven that a good model would not pass
        (600, 1000, 600, True),
        (0, 0, 0, False),
        (5, 5, 5, False),  # one class alone
    ],
)
def test_what_cannot_be_told_from_guessing_is_said_where_the_images_can_tell(right, images, frequent, said):
    assert bool(Guess(right, images, frequent)) == said


class Counting(nn.Sequential):
    """Moves a counter and draws random numbers in each forward, in eval mode, too."""

    def __init__(self):
        super().__init__(*a_model())
        self.register_buffer("calls", torch.zeros(()))
        self.seen = 0

    def forward(self, images):
        self.calls += 1
        self.seen += len(images)
        return super().forward(images + 1e-6 * torch.rand_like(images))


def test_the_first_guess_leaves_no_trace():
    model, loader = Counting(), DataLoader(digits(300), 8, shuffle=True, generator=torch.Generator().manual_seed(3))
    images, labels = next(iter(loader))
    before, modes = weights_of(model), [module.training for module in model.modules()]
    states = [torch.get_rng_state(), loader.generator.get_state()]
    others = random.getstate(), np.random.get_state()[1].tolist()
    guess = first_guess(model, Pixels(), images, labels, loader, seed=0)
    assert guess.images == 256  # as the batch is small
    assert (same(weights_of(model), before), model.seen) == (True, 0)
    assert [module.training for module in model.modules()] == modes
    assert all(map(torch.equal, states, [torch.get_rng_state(), loader.generator.get_state()]))
    assert others == (random.getstate(), np.random.get_state()[1].tolist())
    soft = nn.functional.one_hot(labels, 10).float()
    assert first_guess(model, Pixels(), images, soft, [(images, soft)], seed=0).images == 8


def test_a_model_at_chance_is_said_with_the_advice(caplog, capsys):
    hardened(loader=a_loader(400, batch=100), max_steps=1)
    assert f"{CHANCE} (" in caplog.text
    assert "pass finetune=EPOCHS to train it first, or load trained weights" in caplog.text
    assert {record.levelno for record in caplog.records if CHANCE in record.message} == {logging.WARNING}
    caplog.clear()
    robusttune.estimate(a_model(), a_loader(200), norm="l2", max_steps=1, steps=1, tasks=None, finetune=1)
    assert CHANCE not in caplog.text  # it is known that it has to be trained
    robusttune.estimate(a_model(), a_loader(200), norm="l2", max_steps=1, steps=1, tasks=None)
    assert CHANCE in caplog.text
    hardened(loader=a_loader(400, batch=100), max_steps=1, progress=True)
    assert CHANCE in capsys.readouterr().err


@pytest.mark.slow
def test_a_trained_model_few_images_and_a_resumed_run_are_passed_over_in_silence(caplog, tmp_path):
    trained = hardened(a_model(), a_loader(400), eps=0.0, tasks=None, epochs=4)
    hardened(trained, a_loader(400), max_steps=1)
    hardened(loader=[next(iter(a_loader(400, batch=4)))], max_steps=1)
    assert CHANCE not in caplog.text
    hardened(loader=a_loader(400, batch=100), out=tmp_path / "a", max_steps=1)
    assert CHANCE in caplog.text
    caplog.clear()
    hardened(loader=a_loader(400, batch=100), out=tmp_path / "a", max_steps=1, resume=True)
    assert CHANCE not in caplog.text


def test_evaluate_says_it_at_its_end(caplog):
    robusttune.evaluate(a_model(), a_loader(200), "clean", progress=False)
    assert f"{CHANCE} (" in caplog.text
    assert "load trained weights, or look at the labels" in caplog.text
    caplog.clear()
    robusttune.evaluate(a_model(), a_loader(3), "clean", progress=False)
    robusttune.evaluate(a_model(), a_loader(200), "noise", progress=False)
    assert CHANCE not in caplog.text


class Named(TensorDataset):
    classes = ("circle", "square")


@pytest.mark.parametrize("function", [hardened, robusttune.evaluate])
def test_more_outputs_than_named_classes_are_said_and_fewer_refused(function, caplog):
    images = torch.rand(8, 1, 8, 8)
    loader = DataLoader(Named(images, torch.arange(8) % 2), 8)
    settings = {"max_steps": 1} if function is hardened else {"which": "clean", "progress": False}
    wide = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    function(wide, loader, **settings)
    assert "the model has 5 outputs, but loader.dataset.classes names 2 classes" in caplog.text
    loader.dataset.classes = tuple("abc")
    with pytest.raises(ValueError, match=r"the model has 2 outputs, but loader\.dataset\.classes names 3 classes"):
        function(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), loader, **settings)
    loader.dataset.target_transform = int  # which may map three classes to two
    function(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), loader, **settings)


def test_images_of_a_single_class_are_said(caplog):
    images, labels = digits(1797).tensors
    order = labels.argsort(stable=True)
    batches = list(zip(images[order].split(100), labels[order].split(100), strict=True))
    robusttune.evaluate(hardened(), batches, "clean", subset=128, progress=False)
    assert "all 128 images measured have label 0, so the figures are of this class alone" in caplog.text
    caplog.clear()
    robusttune.evaluate(hardened(), batches, "clean", subset=200, progress=False)
    assert "label 0" not in caplog.text
