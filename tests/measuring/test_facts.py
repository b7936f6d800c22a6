"""What Records say of their measurement: what the user gave, what is known without him, and nothing of his machine."""

import json
import socket
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

import robusttune
from robusttune.run.provenance import digest


class Pictures(TensorDataset):
    split = "validation"


def measured(**arguments):
    torch.manual_seed(0)
    images, labels = torch.rand(12, 1, 32, 32), torch.arange(12) % 3
    model = timm.create_model("test_resnet", in_chans=1, num_classes=3)
    loader = DataLoader(Subset(Pictures(images, labels), range(8)), 4)
    return images, robusttune.evaluate(model, loader, "clean", progress=False, **arguments)


def test_the_model_the_data_the_time_and_the_radius_are_known():
    _, records = measured(norm="linf", eps=8 / 255)
    facts = records.facts
    assert facts["architecture"] == "test_resnet"
    assert facts["parameters"] > 1000
    assert (facts["data set"], facts["split"]) == ("Pictures", "validation")
    assert facts["image shape"] == [1, 32, 32]
    assert (facts["norm"], facts["eps"], facts["eps from"]) == ("linf", "8/255", "passed")
    assert facts["date"].endswith("+00:00")
    assert facts["versions"]["robusttune"] == robusttune.__version__
    assert measured()[1].facts["eps from"] == "customary"


def test_notes_are_kept_as_they_are_given(tmp_path):
    _, records = measured(notes={"data": "<b>ours</b>", "split": "test", "ticket": 7}, out=tmp_path / "e")
    assert robusttune.Records.load(tmp_path / "e").facts["notes"] == {
        "data": "<b>ours</b>",
        "split": "test",
        "ticket": 7,
    }
    page = (
        robusttune.report(records, tmp_path / "page", sections=["setup"])
        .with_suffix(".html")
        .read_text(encoding="utf-8")
    )
    assert "&lt;b&gt;ours&lt;/b&gt;, split test" in page
    assert "ticket: 7" in page


def test_training_images_among_those_measured_are_counted():
    images, _ = measured()
    copies = torch.cat([images[6:9], torch.rand(4, 1, 32, 32)])
    _, records = measured(training_loader=[(copies, torch.zeros(7, dtype=torch.long))])
    assert records.facts["overlap"]["shared"] == 2
    assert records.facts["overlap"]["training images"] == 7
    assert "overlap" not in measured()[1].facts


def test_looking_at_training_images_draws_nothing_from_the_global_generator():
    images, _ = measured()
    training = DataLoader(TensorDataset(images, torch.zeros(12, dtype=torch.long)), 4, shuffle=True)
    model = timm.create_model("test_resnet", in_chans=1, num_classes=3)
    before = torch.get_rng_state()
    robusttune.evaluate(model, training, "clean", training_loader=training, progress=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_of_the_machine_is_kept(tmp_path):
    _, records = measured(out=tmp_path / "e")
    kept = json.dumps(records.facts)
    for private in (str(Path.home()), str(Path.cwd()), str(tmp_path), socket.gethostname()):
        assert private not in kept


@pytest.mark.slow
def test_answers_say_which_class_an_attack_found(tmp_path):
    _, records = measured(out=tmp_path / "e")
    assert records[0].answers is None  # of `clean`
    torch.manual_seed(1)
    images, labels = torch.rand(12, 1, 32, 32), torch.arange(12) % 3
    model = timm.create_model("test_resnet", in_chans=1, num_classes=3)
    with torch.no_grad():
        answers = model.eval()(images).argmax(1)
    found = robusttune.evaluate(
        model,
        [(images, labels)],
        ["clean", "sweep", "strong"],
        norm="linf",
        eps=0.2,
        progress=False,
        out=tmp_path / "s",
    )
    again = robusttune.Records.load(tmp_path / "s")
    assert [each.answers for each in again] == [each.answers for each in found]
    at_zero = found.where("sweep", eps=0.0)[0]
    assert sorted(at_zero.answers) == sorted(answers.tolist())
    for record in [*found.where("sweep"), *found.where("strong")]:
        assert record.right == tuple(
            answer == label for answer, label in zip(record.answers, found.labels, strict=True)
        )


def test_files_without_answers_are_read(tmp_path):
    _, records = measured(out=tmp_path / "e")
    beside = tmp_path / "e" / "records.images.json"
    content = json.loads(beside.read_text())
    del content["answers"]
    beside.write_text(json.dumps(content))
    lines = (tmp_path / "e" / "records.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    first["checksums"]["images"] = digest([beside.read_bytes()])
    (tmp_path / "e" / "records.jsonl").write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n")
    again = robusttune.Records.load(tmp_path / "e")
    assert again.hashes == records.hashes
    assert [each.answers for each in again] == [None] * len(records)


def test_training_images_that_do_not_fit_are_refused_before_anything_is_measured():
    def measured(subject):
        raise AssertionError("too late")

    for wrong, match in ((5, "the training_loader is a int"), ([3], "training_loader: images are an int")):
        with pytest.raises(ValueError, match=match):
            robusttune.evaluate(
                nn.Linear(2, 2), [(torch.rand(2, 1, 8, 8), torch.zeros(2))], measured, training_loader=wrong
            )
