"""What is said at the end of a run that went wrong."""

import copy
import warnings

import pytest
import torch
from torch import nn

from robusttune import harden
from robusttune.training import doubts


def easy_images():
    """128 images of two classes, dark and bright."""
    labels = torch.arange(128) % 2
    noise = torch.rand(128, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return (noise * 0.2 + 0.6 * labels[:, None, None, None]).float(), labels


def eight_classes():
    """256 images of eight classes, in batches of 64."""
    drawn = torch.Generator().manual_seed(0)
    labels = torch.arange(256) % 8
    images = torch.rand(8, 1, 8, 8, generator=drawn)[labels] * 0.7 + 0.3 * torch.rand(256, 1, 8, 8, generator=drawn)
    return list(zip(images.split(64), labels.split(64), strict=True))


def taught(loader, classes):
    """A model that knows the classes."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, classes))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for images, labels in loader * 20:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model


def untrained():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))


def hardened(lr, loader, epochs=4):
    """A run from a model that knows the classes."""
    model = taught(loader, 2)
    settings = {"norm": "linf", "eps": 0.05, "tasks": None, "steps": 2, "ema": 0.0, "progress": False}
    return harden(model, loader, lr=lr, epochs=epochs, **settings)


def test_a_run_that_ends_with_a_model_that_guesses_says_so_and_what_to_try():
    images, labels = easy_images()
    batches = list(zip(images.split(64), labels.split(64), strict=True))
    with pytest.warns(UserWarning, match=r"ended with a model that guesses: .* it was 50 at its peak, so try lr=12.5"):
        hardened(50.0, batches, epochs=1)  # a longer one would go back to better weights


def test_a_run_that_went_well_says_nothing():
    images, labels = easy_images()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        hardened(0.05, list(zip(images.split(64), labels.split(64), strict=True)))
    assert not [each for each in said if "guesses" in str(each.message)]


def test_batches_of_one_class_each_are_warned_of(caplog):
    images, labels = easy_images()
    order = labels.argsort()
    hardened(0.05, list(zip(images[order].split(64), labels[order].split(64), strict=True)), epochs=1)
    assert "all 64 images of the first batch have label 0: if the loader gives images sorted by class" in caplog.text
    caplog.clear()
    hardened(0.05, list(zip(images.split(64), labels.split(64), strict=True)), epochs=1)
    assert "sorted by class" not in caplog.text


def test_a_run_that_ends_with_far_less_than_before_says_so():
    batches = eight_classes()
    model = taught(batches, 8)
    settings = {"norm": "linf", "eps": 0.02, "tasks": None, "steps": 2, "ema": 0.0, "progress": False, "epochs": 1}
    more = copy.deepcopy(model)
    with pytest.warns(
        UserWarning, match=r"correctly, and 100% before this run: .*20 at its peak: try lr=5.*too few steps"
    ):
        harden(model, batches, lr=20.0, **settings)
    # As labels of a teacher may be wrong, agreement with them is not called correct.
    with pytest.warns(
        UserWarning, match=r"of the training images as they are labelled \(by the teacher, where .*and 100% before"
    ):
        harden(more, batches, unlabeled_loader=[torch.cat([images for images, _ in batches])], lr=10.0, **settings)


def test_a_lower_rate_is_named_with_the_images_of_a_step_which_a_rate_alone_would_change(monkeypatch):
    """Without `update_batch=` a rate of the user's own takes whole batches: here one step instead of two."""
    monkeypatch.setattr(doubts, "LOST", 2)
    images, labels = easy_images()
    batches = list(zip(images.split(64), labels.split(64), strict=True))
    settings = {"norm": "linf", "eps": 0.05, "tasks": None, "ema": 0.0, "progress": False, "epochs": 1}
    with pytest.warns(UserWarning, match=r"it was 0.2 at its peak: try lr=0\.05, update_batch=32\).* a large radius"):
        harden(taught(batches, 2), batches, **settings)


def test_a_rate_that_was_lowered_is_not_called_the_peak():
    batches = eight_classes()
    settings = {"norm": "linf", "eps": 0.02, "tasks": None, "steps": 2, "ema": 0.0, "progress": False, "epochs": 2}
    with pytest.warns(UserWarning, match=r"it was 125 after the run went back, so try lr=31\.25$"):
        harden(taught(batches, 8), batches, lr=500.0, **settings)


@pytest.mark.parametrize("held", [False, True], ids=["training images", "held-out images"])
def test_a_run_in_which_no_more_images_withstand_the_attack_than_guessing_gives_says_so(held):
    """At such a radius a model may still learn the unchanged images."""
    batches = eight_classes()
    settings = {"norm": "linf", "tasks": None, "epochs": 3, "lr": 0.05, "ema": 0.0, "progress": False}
    settings |= {"val_loader": batches} if held else {}
    which = "held-out images" if held else "images of the last steps"
    with pytest.warns(
        UserWarning,
        match=rf"of 256 {which} withstood the attack, which is no more than guessing .*\(eps was 0.45 in linf\)",
    ):
        harden(untrained(), batches, eps=0.45, **settings)
    harden(untrained(), batches, eps=0.05, **settings)  # a warning would be an error


@pytest.mark.parametrize(("weight", "end"), [(0.0, "only Monitor and ood use this head$"), (0.5, r"tasks=None$")])
def test_a_head_that_guesses_and_was_not_trained_with_the_model_does_not_alarm(weight, end, tmp_path):
    images, labels = easy_images()
    batches = list(zip(images.split(64), labels.split(64), strict=True))
    settings = {"norm": "linf", "eps": 0.05, "tasks": {"rotation": weight}, "steps": 1, "epochs": 1, "progress": False}
    with pytest.warns(UserWarning, match=rf"rotation's held-out accuracy is .*{end}"):
        harden(taught(batches, 2), batches, val_loader=batches, out=tmp_path, **settings)
