"""Images without labels: `evaluate` measures agreement with a teacher's answers, and nothing calls it accuracy."""

import copy
import re
from functools import partial

import pytest
import torch
from short_runs import a_model, digits, same, weights_of
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from robusttune import Records, compare, estimate, evaluate, harden, plugins, report
from robusttune.data.pixels import Pixels

IMAGES = digits(120).tensors[0]
SWEEP = partial(plugins.find("evaluations", "sweep"), norms=["l2"], eps=[0, 0.3], steps=3)


def alone(images=IMAGES):
    return DataLoader(TensorDataset(images), 40)


def measured(model, loader=None, which=("clean", SWEEP), **settings):
    settings = {"norm": "l2", "eps": 0.3, "progress": False, **settings}
    return evaluate(model, alone() if loader is None else loader, which, **settings)


def values(records):
    return [(record.evaluation, record.value, record.images, record.interval, record.right) for record in records]


def answered_by(model):
    with torch.no_grad():
        return DataLoader(TensorDataset(IMAGES, model.eval()(IMAGES).argmax(1)), 40)


@pytest.fixture(scope="module")
def model():
    return a_model().eval()


@pytest.fixture(scope="module")
def other():
    """A model that agrees with the first on some images alone."""
    model = a_model()
    with torch.no_grad():
        model[-1].bias += 0.3 * torch.randn(10, generator=torch.Generator().manual_seed(0))
    return model.eval()


def test_agreement_is_accuracy_by_the_teachers_answers(model, other):
    before = weights_of(other)
    for teacher, truth in (
        (None, model),
        ("self", model),
        (model, model),
        (other, other),
        (lambda images: other(images), other),
    ):
        records, by_hand = measured(model, teacher=teacher), measured(model, answered_by(truth))
        assert values(records) == values(by_hand)
        assert [record.metric for record in records] == [
            record.metric.replace("accuracy", "agreement") for record in by_hand
        ]
        assert records.labels == by_hand.labels
    assert same(before, weights_of(other))
    assert all(parameter.requires_grad for parameter in other.parameters())


def test_every_form_of_images_alone_is_measured(model):
    expected, parts = values(measured(model)), IMAGES.split(40)
    for form in (list(parts), [(part,) for part in parts], [{"pixel_values": part} for part in parts]):
        assert values(measured(model, form)) == expected
    assert measured(model, [IMAGES], subset=20)[0].images == 20
    assert measured(model, subset=20)[0].images == 20


def test_what_is_measured_is_called_agreement(model, other, tmp_path):
    own, taught = measured(model), measured(model, teacher=other)
    assert {record.metric for record in own} == {"agreement", "balanced agreement", "worst-class agreement"}
    assert own[0].value == 1.0
    assert 0 < taught[0].value < 1
    for text in (str(own), own._repr_markdown_()):
        assert "is the same as its own answers for the image as it is. It is not accuracy" in text
        assert "accuracy |" not in text
    assert "is the same as the answers of Sequential (" in str(taught)
    assert str(Records.load(own.save(tmp_path / "records.jsonl"))) == str(own)
    assert own.worst(eps=0.3).metric == "agreement"
    page = report({"before": own, "after": taught}, tmp_path / "report").read_text(encoding="utf-8")
    verdict = page.split("## Verdict")[1].split("##")[0]
    assert re.search(
        r"“after” agrees with the answers of Sequential \(\w+\) on [\d.]+% of images, and “before” agrees with its own",
        verdict,
    )
    assert "points" not in verdict  # answers of two teachers are two quantities
    assert "| agreement  " in page
    assert "accuracy" not in page.replace("It is not accuracy, as these answers may be wrong", "")


def test_evaluations_speak_of_agreement(model, caplog):
    caplog.set_level("INFO", "robusttune")
    few = IMAGES[model(IMAGES).argmax(1) != 3]
    corrupted = partial(plugins.find("evaluations", "corruptions"), names=["brightness"], severities=[1])
    records = measured(model, alone(few), ["clean", corrupted])
    assert "balanced and worst-class agreement are of the others" in caplog.text
    assert {record.metric for record in records.where("corruptions")} == {"agreement", "mean disagreement"}
    for setting in ({"published": "folder"}, {"baseline": {"brightness": (0.1,) * 5}}):
        with pytest.raises(
            ValueError, match=f"corruptions with {next(iter(setting))}= compares .* yields images alone"
        ):
            measured(model, which=partial(plugins.find("evaluations", "corruptions"), **setting))


def test_agreement_is_compared_with_agreement(model, other):
    own, others, taught = measured(model), measured(other), measured(other, teacher=model)
    assert "clean, agreement" in str(compare(own, taught))
    assert "the answers of Sequential (" in str(compare(own, taught))  # which are the first model's own
    assert "its own answers for the image as it is. It is not accuracy" in str(compare(own, others))
    with pytest.raises(
        ValueError, match=r"with its own answers, the second with the answers of .* pass the same teacher="
    ):
        compare(others, taught)
    truth = measured(model, answered_by(other))
    for pair in ((own, truth), (truth, own)):
        with pytest.raises(ValueError, match="hold accuracies, and some are of images alone"):
            compare(*pair)
    with pytest.raises(ValueError, match="hold accuracies, and some are of images alone"):
        report({"one": own, "other": truth}, "report")
    assert compare(truth, truth).note == ""


def test_a_run_is_a_teacher_with_its_own_pixels(tmp_path, caplog):
    timm = pytest.importorskip("timm")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = (timm.create_model("test_resnet", num_classes=10, in_chans=1) for _ in range(2))
    images, labels = (part[:20] for part in digits().tensors)
    settings = {"norm": "l2", "eps": 0.3, "epochs": 1, "steps": 1, "tasks": None, "progress": False}
    harden(first, [(images, labels)], mean=(0.3,), std=(0.5,), out=tmp_path / "run", **settings)
    space = Pixels((0.3,), (0.5,))
    truth = TensorDataset(IMAGES, first.eval()(space.inputs(IMAGES)).argmax(1))
    told = measured(second, teacher=tmp_path / "run", which="clean")
    assert "was trained on images of" not in caplog.text
    measured(second, [torch.rand(8, 1, 16, 16)], teacher=tmp_path / "run", which="clean")
    assert "run' was trained on images of 8x8, and gets 16x16" in caplog.text
    colourful = timm.create_model("test_resnet", num_classes=10)
    with pytest.raises(ValueError, match="run' takes images with 1 channels, but these have 3"):
        measured(colourful, [torch.rand(8, 3, 8, 8)], teacher=tmp_path / "run", which="clean")
    assert values(told) == values(measured(second, DataLoader(truth, 40), "clean"))
    assert f"the answers of {tmp_path / 'run'} (" in str(told)
    facts = []
    for teacher in (str(tmp_path / "run"), lambda inputs: first(space.inputs(inputs))):
        student = copy.deepcopy(second)
        harden(student, [images], teacher=teacher, out=tmp_path / f"student{len(facts)}", **settings)
        facts.append(weights_of(student))
    assert same(*facts)

    class Named(list):
        dataset = type("Data", (), {"classes": list("abcdefghij")})

    harden(first, Named([(images, labels)]), out=tmp_path / "named", **settings)
    Named.dataset = type("Data", (), {"classes": list("jihgfedcba")})
    with pytest.raises(ValueError, match="class 0 is 'j' and not 'a'"):
        harden(second, Named([images]), teacher=tmp_path / "named", **settings)


def test_unfit_teachers_are_refused(model):
    with pytest.raises(ValueError, match=r"but the loader yields labels: leave teacher= out to measure accuracy"):
        measured(model, answered_by(model), teacher=model)
    with pytest.raises(ValueError, match=r"teacher is 'myself', but it must be 'self'.*the folder of a run"):
        measured(model, teacher="myself")
    with pytest.raises(ValueError, match=r"returned logits of shape \(40, 7\)"):
        measured(model, teacher=nn.Sequential(nn.Flatten(), nn.Linear(64, 7)))


def test_cost_is_estimated(model, other):
    cost = estimate(model, alone(), which=["clean"], teacher=other)
    assert cost.evaluations[0].images == 120
