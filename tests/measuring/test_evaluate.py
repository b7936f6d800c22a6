"""What is measured, against what can be worked out by hand on a linear model, and how it is kept and shown."""

import copy
import math
from functools import partial

import pytest
import torch
from handwritten import digits as real_digits
from handwritten import hardened
from linear_model import COUNT, distances, linear
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import robusttune
from robusttune.data.splits import subset_of
from robusttune.evaluations.autoattack import autoattack
from robusttune.evaluations.sanity import sanity
from robusttune.evaluations.sweep import sweep
from robusttune.measuring.intervals import smallest, wilson
from robusttune.measuring.record import accuracy


def test_clean_accuracy_is_counted_over_all_batches():
    model, images, labels = linear()
    loader = DataLoader(TensorDataset(images, labels), 7)
    record, balanced, worst = robusttune.evaluate(model, loader, "clean", progress=False)
    right = int((distances(model, images, labels, "l2") > 0).sum())
    assert (record.value, record.images, record.interval) == (right / COUNT, COUNT, wilson(right, COUNT))
    own = [int((distances(model, images, labels, "l2") > 0)[labels == each].sum()) for each in (0, 1)]
    assert math.isclose(balanced.value, sum(own) / COUNT)  # both classes have as many images
    assert (balanced.metric, balanced.images) == ("balanced accuracy", COUNT)
    assert balanced.interval[0] < balanced.value < balanced.interval[1]
    assert (worst.value, worst.images, worst.setting["class"]) == (min(own) / 30, 30, own.index(min(own)))


def test_classes_count_alike_however_many_images_they_have():
    """Three of class 0, all right; one of class 2, wrong; none of class 1."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor([2.0, 0.0, 0.0]))
    batch = (torch.rand(4, 1, 2, 2), torch.tensor([0, 0, 2, 0]))
    mean, balanced, worst = robusttune.evaluate(model, [batch], "clean", progress=False)
    assert (mean.value, balanced.value, worst.value) == (0.75, 0.5, 0.0)
    assert (worst.setting["class"], worst.images) == (2, 1)


def test_the_same_seed_gives_the_same_records_and_every_norm_is_swept():
    model, images, labels = linear()
    loader = DataLoader(TensorDataset(images, labels), 30)
    runs = [robusttune.evaluate(model, loader, norm="l2", eps=0.1, progress=False, seed=3) for _ in range(2)]
    assert runs[0] == runs[1]
    assert {record.setting.get("norm") for record in runs[0]} == {None, "l2", "linf"}
    assert max(record.setting["eps"] for record in runs[0].where("sweep", norm="l2")) >= 0.2  # well past the radius


@pytest.mark.sample(1)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_attacks_are_measured_where_gradients_are_off(mode):
    model, images, labels = linear()
    which = ["clean", partial(sweep, steps=3), partial(sanity, images=20, steps=2)]
    settings = {"norm": "linf", "eps": 0.05, "progress": False}
    usual = robusttune.evaluate(model, [(images, labels)], which, **settings)
    with mode():
        found = robusttune.evaluate(model, [(images.clone(), labels)], which, **settings)
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
    assert found == usual


def test_a_subset_is_drawn_with_the_seed_and_from_other_loaders_taken_first():
    model, images, labels = linear()
    data = TensorDataset(images, labels)
    for loader in (DataLoader(data, 7), [(images, labels)]):
        record = robusttune.evaluate(model, loader, "clean", subset=13, progress=False)[0]
        assert record.images == 13
    drawn = [torch.cat([i for i, _ in subset_of(DataLoader(data, 7), 13, seed)]) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_an_attack_and_an_evaluation_of_one_s_own_are_taken():
    model, images, labels = linear()

    def nothing(loss_of, images, threat, *, generator):
        return images

    def classes(subject):
        return [accuracy("classes", 1, len(next(iter(subject.batches()))[1]))]

    which = [partial(sweep, norms=["l2"], eps=[9.0], attack=nothing, steps=None), classes]
    records = robusttune.evaluate(model, [(images, labels)], which, progress=False)
    clean = robusttune.evaluate(model, [(images, labels)], "clean", progress=False)[0]
    assert records[0].value == clean.value
    assert records[0].setting["attack"] == "nothing"
    assert records[1].images == COUNT
    for wrong in (None, 0.5, [0.5]):
        with pytest.raises(ValueError, match=r"the evaluation <lambda> returned .*, but a list of Record is needed"):
            robusttune.evaluate(model, [(images, labels)], lambda subject, wrong=wrong: wrong, progress=False)
    with pytest.raises(ValueError, match=r"unknown evaluation 'sweeps' \(did you mean 'sweep'\?\): known are .*clean"):
        robusttune.evaluate(model, [(images, labels)], "sweeps")


def test_answers_that_are_no_numbers_are_not_judged():
    model, images, labels = linear()
    loader = [(images, labels), (images, labels)]
    with torch.no_grad():
        model[1].weight[0, 0] = torch.inf
    with pytest.raises(ValueError, match=r"NaN|infinite"):
        robusttune.evaluate(model, loader, "clean", progress=False)


class Trips(torch.nn.Module):
    """Fails on an image with a bright corner: with an error, or with NaN."""

    def __init__(self, error):
        super().__init__()
        self.fc, self.error = torch.nn.Linear(64, 10), error

    def forward(self, images):
        bright = images[:, 0, 0, 0] > 0.6
        if self.error and bright.any():
            raise RuntimeError("cannot read image 7")
        return self.fc(images.flatten(1)).masked_fill(bright[:, None], torch.nan)


@pytest.mark.parametrize("which", ["clean", "sweep", "strong", "autoattack", "corruptions", "noise", "sanity"])
@pytest.mark.parametrize(
    ("case", "says"),
    [("empty", "empty"), ("nan", "NaN|not finite"), ("error", "cannot read image 7"), ("labels", "label 10")],
)
def test_what_cannot_be_measured_leaves_nothing_behind(which, case, says, tmp_path):
    if which == "autoattack":
        pytest.importorskip("torchattacks")
    images, labels = real_digits()
    images, labels = images[:40].clone(), labels[:40].clone()
    model = Trips(case == "error").train()
    if case in ("nan", "error"):
        images[7, 0] = 1.0
    elif case == "labels":
        labels[7] = 10
    batches = [] if case == "empty" else [(images[:20], labels[:20]), (images[20:], labels[20:])]
    before = copy.deepcopy(model.state_dict())
    quick = {"sweep": partial(sweep, steps=2), "autoattack": partial(autoattack, queries=2)}.get(which, which)
    with pytest.raises((ValueError, RuntimeError), match=says):
        robusttune.evaluate(model, batches, quick, out=tmp_path / "out", progress=False)
    assert list((tmp_path / "out").glob("*")) == []
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_class_without_images_is_told_and_not_counted(caplog):
    caplog.set_level("INFO")
    images, labels = real_digits()
    rows = (labels != 3).nonzero().flatten()[:100]
    records = robusttune.evaluate(hardened(), [(images[rows], labels[rows])], "clean", progress=False)
    shares = [
        float((hardened()(images[rows]).argmax(1) == labels[rows])[labels[rows] == each].float().mean())
        for each in range(10)
        if each != 3
    ]
    balanced = next(record for record in records if record.metric == "balanced accuracy")
    assert balanced.value == pytest.approx(sum(shares) / 9)
    assert balanced.setting["classes"] == "9 of 10"
    worst = next(record for record in records if record.metric == "worst-class accuracy")
    assert worst.value == pytest.approx(min(shares))
    right = hardened()(images[rows]).argmax(1) == labels[rows]
    counts = [(int(right[of].sum()), int(of.sum())) for of in (labels[rows] == each for each in range(10)) if of.any()]
    assert worst.interval == smallest(counts)
    (check,) = records.require("worst_class>=0.001")
    assert check.what == "worst-class accuracy on unchanged images, of 9 of 10 classes"
    assert "no images of 1 of 10 classes (3): balanced and worst-class accuracy are of the others" in caplog.text


def test_a_setting_of_the_attack_that_is_passed_to_the_evaluation_is_refused_with_its_place():
    model, images, labels = linear()
    misplaced = partial(sweep, attack="pgd", step_size=0.01)
    with pytest.raises(
        ValueError, match=r"sweep.* unexpected keyword argument 'step_size'; set its own .* by attack=partial"
    ):
        robusttune.evaluate(model, [(images, labels)], misplaced, norm="linf", progress=False)
