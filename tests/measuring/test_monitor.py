"""Alarms at the stated rate on images of the right kind, and on every batch of other ones; the reference as files."""

import json
from collections import Counter

import pytest
import torch
from guarded import everything, small_model, unchanged
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import robusttune
from robusttune import Monitor, RobustLoss, ThreatModel
from robusttune.measuring.image_statistics import image_statistics
from robusttune.measuring.monitor import FACTS, VALUES

ALONE = pytest.mark.filterwarnings("ignore:there is no rotation head")


def pictures(count, seed, side=8):
    """Images whose brightness and contrast differ, with skewed distributions."""
    chance = torch.Generator().manual_seed(seed)
    strength = torch.rand(count, 1, 1, 1, generator=chance) ** 3
    return (0.2 + strength * torch.rand(count, 3, side, side, generator=chance)).clamp(0, 1)


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def heads(model):
    return RobustLoss(model, ThreatModel("linf", 0.1), tasks={"rotation": 1.0}, images=pictures(4, 0), seed=3)


@pytest.fixture(scope="module")
def monitor(model, heads):
    return Monitor(model, pictures(3000, 1).split(500), heads=heads, false_alarms=0.05)


@pytest.mark.sample(1)
@pytest.mark.parametrize("size", [1, 16, 64])
def test_the_rate_of_false_alarms_is_the_stated_one(monitor, size):
    batches = pictures(400 * size, 2).split(size)
    alarms = sum(monitor(batch).alarm for batch in batches)
    # 20 are expected of 400; less than one time in a thousand are they fewer than 8 or more than 36.
    assert 8 <= alarms <= 36


@pytest.mark.parametrize(
    "changed",
    [
        lambda images: images * 0.5,
        lambda images: images.mean((2, 3), keepdim=True).expand_as(images),
        lambda images: (images + 0.2 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(
            0, 1
        ),
    ],
    ids=["darker", "blurred", "noisy"],
)
def test_other_images_raise_an_alarm(monitor, changed):
    assert all(monitor(changed(batch)).alarm for batch in pictures(320, 4).split(32))


class Breaking(nn.Module):
    """A classifier whose answers to bright images are NaN, as after an overflow."""

    def __init__(self):
        super().__init__()
        self.body = small_model()

    def forward(self, images):
        bright = images.mean((1, 2, 3)) > 0.9
        return torch.where(bright[:, None], torch.nan, self.body(images))


@ALONE
def test_answers_that_are_nan_raise_an_alarm_whatever_the_pixels_say(tmp_path):
    model, usual = Breaking(), pictures(100, 1)
    batch = pictures(400, 2)
    batch[0] = 0.95  # too few to be seen in the pixels
    seen = Monitor(model, [usual], log=tmp_path / "log.jsonl")(batch)
    line = json.loads((tmp_path / "log.jsonl").read_text(), parse_constant=pytest.fail)
    assert (line["distances"]["confidence"], line["alarm"]) == (None, True)
    assert max(abs(seen.distances[name]) for name in seen.distances if name != "confidence") < seen.threshold
    assert (seen.alarm, seen.statistic) == (True, "confidence")
    reference = Monitor(model, [usual])._reference
    values = {name: each[:2].clone() for name, each in reference.values.items()}
    values["confidence"][1] = torch.nan
    assert reference.strange(values).tolist() == [bool(reference.strange(reference.values)[0]), True]
    with pytest.raises(ValueError, match="confidence of some reference images is NaN or infinite: look at the model"):
        Monitor(model, [usual, torch.full((4, 3, 8, 8), 0.95)])


def test_a_turn_is_told_by_the_head_alone():
    """A head that knows which way is up sees turned images, of which pixels say nothing."""
    images = torch.zeros(256, 1, 8, 8)
    images[:, :, :4] = 0.5 + 0.4 * torch.rand(256, 1, 4, 8, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(model[1].weight)
    robust_loss = RobustLoss(model, ThreatModel("linf", 0.1), tasks={"rotation": 1.0}, images=images)
    optimizer = torch.optim.Adam(robust_loss.heads.parameters(), 0.05)
    for _ in range(30):
        part = robust_loss.heads.whole("rotation", images, torch.Generator().manual_seed(0))
        loss = robust_loss.heads.losses([part], part.view.of(images).flatten(1))[0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    seen = Monitor(model, [images], heads=robust_loss)(images[:32].flip(2))
    assert (seen.alarm, seen.statistic) == (True, "strangeness")


def test_distances_are_in_standard_errors(monitor):
    batch = pictures(100, 7)
    seen, values, reference = (
        monitor(batch),
        image_statistics(batch)["contrast"].double(),
        monitor.reference["contrast"].double(),
    )
    error = reference.std() * (1 / 100 + 1 / 3000) ** 0.5
    assert seen.distances["contrast"] == pytest.approx(float((values.mean() - reference.mean()) / error), rel=1e-4)
    assert seen.values["contrast"] == pytest.approx(float(values.mean()), rel=1e-5)
    assert seen.images == 100


def test_traits_of_images_are_those_that_their_names_say():
    images = torch.zeros(2, 3, 4, 4)
    images[0, 1] = 0.6
    images[1, :, ::2] = 1.0
    found = image_statistics(images)
    assert found["mean of channel 2"].tolist() == pytest.approx([0.6, 0.5])
    assert found["contrast"].tolist() == pytest.approx([float(images[0].std()), float(images[1].std())])
    assert found["detail"].tolist() == pytest.approx([0.0, 0.5])
    assert list(image_statistics(torch.rand(2, 5, 4, 4))) == ["mean", "contrast", "detail"]


def test_nothing_of_the_model_changes(model, heads):
    with unchanged(model), unchanged(heads.heads):
        Monitor(model, [pictures(100, 1)], heads=heads)(pictures(5, 2))


def test_each_batch_is_a_line(model, heads, tmp_path):
    monitor = Monitor(model, [pictures(100, 1)], heads=heads, log=tmp_path / "new" / "log.jsonl")
    seen = [monitor(pictures(8, 5)), monitor(torch.ones(8, 3, 8, 8))]
    lines = [json.loads(line) for line in (tmp_path / "new" / "log.jsonl").read_text().splitlines()]
    assert [line["alarm"] for line in lines] == [False, True]
    assert [line["distances"] for line in lines] == [each.distances for each in seen]
    assert all(line["time"].endswith("+00:00") for line in lines)


def test_a_batch_has_its_answers_by_the_names_of_classes(model, tmp_path):
    class Animals(TensorDataset):
        classes = tuple("abcdefghij")

    monitor = Monitor(model, DataLoader(Animals(pictures(100, 1), torch.zeros(100)), 50), log=tmp_path / "log.jsonl")
    batch = pictures(30, 2)
    with torch.no_grad():
        answers = Counter("abcdefghij"[label] for label in model(batch).argmax(1).tolist())
    assert monitor(batch).answers == dict(answers)
    assert json.loads((tmp_path / "log.jsonl").read_text())["answers"] == dict(answers)
    folder = monitor.save(tmp_path / "reference")
    assert Monitor.load(folder, model)(batch).answers == dict(answers)
    facts = json.loads((folder / FACTS).read_text())
    del facts["classes"], facts["checksum"]  # as in files of before
    (folder / FACTS).write_text(json.dumps(facts))
    assert set(Monitor.load(folder, model)(batch).answers) == {str("abcdefghij".index(name)) for name in answers}


def test_a_saved_reference_says_the_same(monitor, model, heads, tmp_path):
    folder = monitor.save(tmp_path / "reference")
    again = Monitor.load(folder, model, heads=heads)
    for batch in (pictures(9, 11), torch.ones(9, 3, 8, 8)):
        assert again(batch) == monitor(batch)
    with pytest.raises(ValueError, match=r"recorded with pretext heads: pass heads="):
        Monitor.load(folder, model)
    others = RobustLoss(model, ThreatModel("linf", 0.1), tasks={"rotation": 1.0}, images=pictures(4, 0), seed=4)
    with pytest.raises(ValueError, match=r"heads= are others than those of the reference: pass those"):
        Monitor.load(folder, model, heads=others)
    with pytest.raises(ValueError, match=r"other weights than that of the reference: record a new reference"):
        Monitor.load(folder, small_model(3, 6), heads=heads)
    facts = json.loads((folder / FACTS).read_text())
    (folder / FACTS).write_text(json.dumps({**facts, "format": 7}))
    with pytest.raises(ValueError, match=r"has format 7, but 1 is needed: record a new"):
        Monitor.load(folder, model, heads=heads)
    (folder / FACTS).write_text("{")
    with pytest.raises(ValueError, match=r"holds no reference that can be read: record one with Monitor"):
        Monitor.load(folder, model, heads=heads)
    assert {path.name for path in folder.iterdir()} == {FACTS, VALUES}


def test_without_a_rotation_head_it_says_what_it_uses(model, caplog):
    monitor = Monitor(model, [pictures(100, 1)])
    assert "uses only the images' pixels and the model's confidence" in caplog.text
    assert monitor.statistics[-1] == "confidence"
    jigsaw = RobustLoss(model, ThreatModel("linf", 0.1), tasks={"jigsaw": 1.0}, images=pictures(4, 0))
    assert "strangeness" not in Monitor(model, [pictures(100, 1)], heads=jigsaw).statistics


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"loader": [pictures(63, 1)]}, r"the reference has 63 images, but at least 64 are needed"),
        ({"false_alarms": 0}, r"false_alarms is 0, but a share of batches from 0\.0001 to 0\.5 is needed"),
        ({"false_alarms": 0.9}, r"false_alarms is 0\.9, but"),
        ({"loader": iter([pictures(100, 1)])}, r"which can be gone through only once"),
    ],
)
def test_what_does_not_fit_is_refused(model, settings, says):
    before = everything(model)
    with pytest.raises(ValueError, match=says):
        Monitor(model, **{"loader": [pictures(100, 1)], **settings})
    assert everything(model) == before


def test_images_of_another_shape_are_refused(monitor):
    with pytest.raises(
        ValueError, match=r"images have shape \(3, 9, 9\), but the reference's have \(3, 8, 8\): use the same transform"
    ):
        monitor(pictures(4, 1, side=9))
    assert callable(robusttune.Monitor)


@ALONE
def test_a_channel_that_never_changes_raises_no_alarm_by_rounding():
    """The last bits of a mean over pixels follow from the memory format and the number of images."""
    images = pictures(640, 3, side=32)
    images[:, 2] = 0.3
    monitor = Monitor(small_model(), images.split(64), false_alarms=0.001)
    for batch in (images[:100], images.to(memory_format=torch.channels_last)[:100], images.mT[:100]):
        assert abs(monitor(batch).distances["mean of channel 3"]) < 0.1
    darker = images[:100].clone()
    darker[:, 2] -= 0.001
    assert monitor(darker).statistic == "mean of channel 3"
