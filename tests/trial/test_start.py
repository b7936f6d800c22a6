"""What a trial looks at before it spends anything: classes and number of the held-out images."""

import re

import pytest
import torch
from small_trials import loader, small, tried
from torch.utils.data import DataLoader, TensorDataset

from robusttune.trial.plan import PlannedEvaluation, TrialPlan
from robusttune.trial.start import too_few

STAGED = {"screening": None, "seeds": 3, "arms": ["nothing", "adversarial", "fast"]}


def named(source, *names):
    source.dataset.classes = list(names)
    return source


def labelled(labels, count=64):
    images = torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(images, torch.tensor(labels).repeat(count)[:count]), 32)


def test_too_few_held_out_images_for_any_answer_are_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(
        ValueError, match=r"^32 held-out images are too few for any answer: a difference of 5 points takes at least 150"
    ):
        tried(tmp_path / "t", **STAGED, images=32)
    assert not list((tmp_path / "t").glob("arms/*"))


@pytest.mark.parametrize(("images", "few"), [(149, True), (150, False)])
def test_too_few_is_what_endless_seeds_could_not_tell(images, few):
    plan = TrialPlan(seeds=[0], epochs=1, arms={}, evaluation=PlannedEvaluation(images, ["clean"]))
    assert (too_few(plan) is not None) == few
    # The best case: two arms that differ by 5 points in one direction alone, with no scatter from seed to seed.
    drawn = torch.rand(20_000, images, generator=torch.Generator().manual_seed(0)) < 0.05
    share = drawn.float().mean(1)
    error = (share * (1 - share) / images).sqrt()
    found = float((share > 1.96 * error).float().mean())
    assert found > 0.75 if not few else found < 0.999


@pytest.mark.parametrize(
    ("there", "says"),
    [
        (None, r"at least 150, beside the 50 that the screening takes, .*; raise images to 150 or more$"),
        (200, r"^100 held-out.*; raise images to 150 or more$"),
        (149, r"^99 held-out.*beside the 50 .*; hold more back, or pass a larger test_loader$"),
    ],
)
def test_too_few_says_what_the_screening_takes_and_what_to_do(there, says):
    plan = TrialPlan(
        seeds=[0], epochs=1, arms={}, screening={"images": 50}, evaluation=PlannedEvaluation(100, ["clean"])
    )
    assert re.search(says, too_few(plan, there))


def test_labels_that_the_model_has_no_output_for_are_refused(tmp_path):
    with pytest.raises(ValueError, match="label 3 is out of range: the model has 3 classes"):
        tried(tmp_path / "t", test_loader=labelled([0, 1, 2] * 20 + [3]))
    assert not list((tmp_path / "t").glob("arms/*"))


def test_other_classes_than_those_of_training_are_refused(tmp_path):
    held = named(loader(seed=1), "cat", "cow", "dog")
    given = named(loader(), "cat", "dog", "cow")
    import robusttune

    with pytest.raises(
        ValueError, match=r"the classes of loader are cat, dog, cow, those of test_loader cat, cow, dog"
    ):
        robusttune.poc(small(), given, test_loader=held, out=tmp_path / "t", mean=[0.0], std=[1.0], device="cpu")


def test_a_class_without_held_out_images_is_named(tmp_path, caplog):
    tried(tmp_path / "t", test_loader=labelled([0, 2]), plan_only=True)
    assert "no held-out image is of the class 1: the trial says nothing about it" in caplog.text
    assert "32 held-out images are too few for any answer" in caplog.text
