"""The evaluation of corruptions: what it counts, on which images, and what it says of it."""

import warnings
from functools import lru_cache, partial

import kornia.augmentation as kornia
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from tables import unpadded
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import robusttune
from robusttune import plugins
from robusttune.evaluations import _mean_corruption_error
from robusttune.evaluations.corruptions import corruptions
from robusttune.measuring.intervals import wilson
from robusttune.measuring.record import repeated
from robusttune.measuring.records import Records
from robusttune.model.seen_corruptions import remember, trained_on

COUNT = 90
BRIEF = {"names": ["gaussian_noise", "fog", "contrast"], "severities": [1, 5]}


@lru_cache(maxsize=1)
def digits():
    """Digits (N,1,32,32) in [0,1] and labels."""
    images, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(images).float().view(-1, 1, 8, 8) / 16
    return nn.functional.interpolate(images, scale_factor=4, mode="nearest"), torch.from_numpy(labels)


@lru_cache(maxsize=1)
def fitted():
    """A linear classifier of digits, which knows most of them."""
    images, labels = digits()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[COUNT:]), labels[COUNT:]).backward()
        optimizer.step()
    return model


def loader(batch_size=20, count=COUNT):
    images, labels = digits()
    return DataLoader(TensorDataset(images[:count], labels[:count]), batch_size)


def measured(which=None, *, model=None, batches=None, **settings):
    which = partial(corruptions, **(BRIEF if which is None else which))
    return robusttune.evaluate(model or fitted(), batches or loader(), which, progress=False, **settings)


def value(records, **setting):
    (record,) = [r for r in records.where("corruptions", **setting) if r.metric == "accuracy"]
    return record.value


def test_each_condition_is_counted_as_by_hand():
    records, (images, labels) = measured(), digits()
    for name in BRIEF["names"]:
        for severity in BRIEF["severities"]:
            (record,) = records.where(corruption=name, severity=severity)
            assert record.images == COUNT
            assert record.interval == wilson(round(record.value * COUNT), COUNT)
    changed = plugins.find("corruptions", "contrast")(images[:COUNT], 5)
    changed = torch.floor(changed * 255 + 1e-3) / 255
    right = (fitted()(changed).argmax(1) == labels[:COUNT]).float().mean()
    assert value(records, corruption="contrast", severity=5) == pytest.approx(float(right))


def test_means_over_severities_families_and_all():
    records = measured()
    single = {
        (name, severity): value(records, corruption=name, severity=severity)
        for name in BRIEF["names"]
        for severity in BRIEF["severities"]
    }
    for name in BRIEF["names"]:
        (mean,) = [r for r in records.where(corruption=name) if "severity" not in r.setting]
        assert mean.value == pytest.approx((single[name, 1] + single[name, 5]) / 2)
    assert value(records, over="weather") == pytest.approx((single["fog", 1] + single["fog", 5]) / 2)
    assert value(records, over="all") == pytest.approx(sum(single.values()) / 6)
    (error,) = [record for record in records if record.metric == "mean error"]
    assert error.value == pytest.approx(1 - sum(single.values()) / 6)
    assert error.interval[0] <= error.value <= error.interval[1]
    assert all(record.images == COUNT for record in records)
    assert len(set(single.values())) > 1


@pytest.mark.parametrize("batch_size", [1, 7, 90])
def test_the_result_does_not_depend_on_the_batch_size(batch_size):
    which = {"names": ["shot_noise", "glass_blur", kornia.RandomGaussianNoise(std=0.3, p=1.0)], "severities": [4]}
    assert measured(which, batches=loader(batch_size)) == measured(which)


def test_another_seed_draws_other_noise():
    which = {"names": ["impulse_noise"], "severities": [5], "preset": 224}
    first, same, other = (
        [r.value for r in measured(which, seed=seed, batches=loader(count=600))] for seed in (0, 0, 1)
    )
    assert first == same != other


def test_the_fifteen_are_measured_at_all_severities_unless_told_otherwise():
    records = measured({}, batches=loader(10, 10))
    names = {record.setting["corruption"] for record in records if "severity" in record.setting}
    assert names == set(_mean_corruption_error.ALEXNET)
    assert len([record for record in records if "severity" in record.setting]) == 75
    assert [r.setting["over"] for r in records if "over" in r.setting] == [
        "noise",
        "blur",
        "weather",
        "digital",
        "all",
        "all",
    ]


def test_the_protocol_is_stamped_on_every_record_and_told(caplog):
    with caplog.at_level("INFO", "robusttune"):
        records = measured()
    assert {record.setting["protocol"] for record in records} == {"made here, severities for 32 px, 8 bits"}
    assert "corruptions: made here, severities for 32 px, 8 bits" in caplog.messages
    saved = measured({**BRIEF, "jpeg_save": True, "preset": 224})
    assert {r.setting["protocol"] for r in saved} == {"made here, severities for 224 px, saved as JPEG of quality 85"}
    assert not [record for record in records if record.metric in ("mCE", "relative mCE")]


def test_saving_as_jpeg_weakens_noise():
    class Spread(nn.Module):
        """Remembers how much neighbours differ."""

        def __init__(self):
            super().__init__()
            self.seen = []

        def forward(self, images):
            self.seen.append(float(images.diff(dim=3).abs().mean()))
            return images.flatten(1)[:, :10] * 0

    spreads = []
    flat = [(torch.full((4, 3, 32, 32), 0.5), torch.arange(4))]
    for jpeg_save in (False, True):
        model = Spread()
        which = partial(corruptions, names=["gaussian_noise"], severities=[3], jpeg_save=jpeg_save)
        robusttune.evaluate(model, flat, which, progress=False)
        spreads.append(model.seen[-1])
    assert spreads[1] < 0.9 * spreads[0]


def test_kornia_augmentations_and_partials_stand_beside_ours(tmp_path):
    flip = kornia.RandomHorizontalFlip(p=1.0)
    frost = partial(plugins.find("corruptions", "frost"), frost_dir=tmp_path)
    Image.new("RGB", (64, 64), (200, 200, 200)).save(tmp_path / "ice.png")
    records = measured({"names": [flip, frost, "fog"], "severities": [2]})
    images, labels = digits()
    right = (fitted()(images[:COUNT].flip(3)).argmax(1) == labels[:COUNT]).float().mean()
    assert value(records, corruption="RandomHorizontalFlip", severity=None) == pytest.approx(float(right))
    assert 0 <= value(records, corruption="frost", severity=2) <= 1
    assert {r.setting["over"] for r in records if "over" in r.setting} == {"other", "weather", "all"}


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ({"names": ["fogg"]}, r"unknown corruption 'fogg' \(did you mean 'fog'\?\)"),
        ({"names": []}, "at least one corruption"),
        ({"severities": [0]}, r"severities=\[0\].* out of 1 to 5"),
        ({"severities": [1, 1]}, r"severities=\[1, 1\] holds one more than once"),
        ({"names": [3]}, "names= holds 3"),
        ({"names": ["fog"], "preset": 100}, "preset is 100"),
        ({"published": "nowhere"}, "is no folder"),
        ({"names": ["fog", "snow", plugins.find("corruptions", "fog")]}, "names= holds fog more than once"),
        ({"names": ["fog"], "baseline": {"snow": [0.5] * 5}}, r"5 corruptions and severities .* such as \('snow', 1\)"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(which, message):
    with pytest.raises(ValueError, match=message):
        measured(which)


def test_a_baseline_of_ones_own_divides_the_errors():
    which = {"names": ["fog", "snow"], "baseline": {"fog": [0.5] * 5, "snow": [0.25] * 5}}
    records = measured(which)
    (record,) = [r for r in records if r.metric == "mCE"]
    means = [
        1 - value(Records(r for r in records if "severity" not in r.setting), corruption=n) for n in ("fog", "snow")
    ]
    assert record.value == pytest.approx((means[0] / 0.5 + means[1] / 0.25) / 2)
    assert record.interval[0] < record.value < record.interval[1]
    assert "the baseline given" in record.setting["over"]


def test_a_model_trained_on_a_corruption_is_told_apart():
    model = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 10))
    remember(model, ["fog"])
    with pytest.warns(UserWarning, match="the model was trained on fog: its accuracy on that says little"):
        records = measured(model=model)
    marked = [r.setting for r in records if "in training" in r.setting]
    assert {setting["corruption"] for setting in marked if "corruption" in setting} == {"fog"}
    assert {setting["over"] for setting in marked if "over" in setting} == {"weather", "all"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measured({"names": ["contrast"]}, model=model)


def test_what_is_remembered_goes_with_the_model():
    model = nn.Linear(2, 2)
    remember(model, ["fog"])
    remember(model, ["snow"])
    assert trained_on(model) == {"fog", "snow"}
    assert not trained_on(nn.Linear(2, 2))
    assert list(model.state_dict()) == ["weight", "bias"]
    assert "fog" not in str(vars(model))
    del model
    assert not any(trained_on(nn.Linear(2, 2)) for _ in range(20))


def save_arrays(root, names=("fog", "contrast"), channels=1):
    images, labels = digits()
    images = (images[:COUNT] * 255).byte().permute(0, 2, 3, 1).numpy()
    for name in names:
        np.save(root / f"{name}.npy", np.concatenate([images // severity for severity in range(1, 6)]))
    np.save(root / "labels.npy", np.tile(labels[:COUNT].numpy(), 5))
    return torch.from_numpy(images).permute(0, 3, 1, 2), labels[:COUNT]


def test_published_files_are_judged_as_they_are(tmp_path):
    levels, labels = save_arrays(tmp_path)
    records = measured({"published": tmp_path, "severities": [1, 4]})
    right = (fitted()((levels // 4).float() / 255).argmax(1) == labels).float().mean()
    assert value(records, corruption="fog", severity=4) == pytest.approx(float(right))
    assert {r.setting["corruption"] for r in records if "severity" in r.setting} == {"fog", "contrast"}
    (protocol,) = {r.setting["protocol"] for r in records}
    assert protocol == f"published files, arrays as of CIFAR-10-C in {tmp_path.name}, as they are"


def test_some_of_the_published_images(tmp_path):
    save_arrays(tmp_path)
    records = measured({"published": tmp_path, "images": 30})
    assert {record.images for record in records} == {30}


def test_published_files_with_other_classes_or_missing_images_are_refused(tmp_path):
    save_arrays(tmp_path)
    model = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 3))
    batches = [(image, label % 3) for image, label in loader()]
    with pytest.raises(ValueError, match="label"):
        measured({"published": tmp_path}, model=model, batches=batches)
    for name, count in (("fog", 4), ("snow", 3)):
        for severity in "12345":
            for row in range(count):
                (tmp_path / "tree" / name / severity / f"n{row}").mkdir(parents=True)
                picture = Image.new("L", (32, 32), 20 * row).convert("RGB")
                picture.save(tmp_path / "tree" / name / severity / f"n{row}" / "val.png")
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    batches = [(torch.rand(8, 3, 32, 32), torch.arange(8))]
    with pytest.raises(ValueError, match="4 class folders, such as 'n0', for 10 outputs of the model"):
        measured({"published": tmp_path / "tree"}, model=model, batches=batches)
    wnids = [f"n{row}" for row in range(10)]  # six of them without a folder
    with pytest.raises(ValueError, match=r"has 3 images for \('snow', 1\) but 4 for \('fog', 1\)"):
        measured({"published": tmp_path / "tree", "wnids": wnids}, model=model, batches=batches)


def test_published_folders_are_numbered_by_the_names_of_the_models_classes(tmp_path):
    """Sorted by their names, "blue" would be class 0 of a model that calls class 2 so."""
    colours = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
    for severity in "12345":
        for name in ("green", "blue"):
            (tmp_path / "fog" / severity / name).mkdir(parents=True)
            Image.new("RGB", (8, 8), colours[name]).save(tmp_path / "fog" / severity / name / "0.png")
    mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3, bias=False))
    mean[2].weight.data = 9 * torch.eye(3)  # the class is the strongest colour
    images = TensorDataset(torch.eye(3)[..., None, None].expand(-1, -1, 8, 8), torch.arange(3))
    images.classes = list(colours)
    records = measured({"published": tmp_path}, model=mean, batches=DataLoader(images, 3))
    assert value(records, corruption="fog", severity=1) == 1


def test_larger_published_images_are_cut_and_smaller_ones_refused(tmp_path):
    save_arrays(tmp_path)
    images, labels = digits()
    batches = [(images[:20, :, 4:28, 4:28], labels[:20])]
    model = nn.Sequential(nn.Flatten(), nn.Linear(24 * 24, 10))
    records = measured({"published": tmp_path, "severities": [1]}, model=model, batches=batches)
    assert "middle 24×24 px" in records[0].setting["protocol"]
    large = nn.Sequential(nn.Flatten(), nn.Linear(40 * 40, 10))
    batches = [(torch.rand(20, 1, 40, 40), labels[:20])]
    with pytest.raises(ValueError, match=r"published images are \(1, 32, 32\), but the loader's are \(1, 40, 40\)"):
        measured({"published": tmp_path}, model=large, batches=batches)
    grown = partial(nn.functional.interpolate, size=(40, 40))
    records = measured({"published": tmp_path, "severities": [1], "transform": grown}, model=large, batches=batches)
    assert "changed by the transform given" in records[0].setting["protocol"]


class Thousand(nn.Module):
    """Digits among ImageNet's thousand classes."""

    def forward(self, images):
        return nn.functional.pad(fitted()(images), (0, 990), value=-100.0)


def test_alexnet_is_compared_with_only_for_all_of_imagenets_published_files(tmp_path):
    save_arrays(tmp_path, _mean_corruption_error.ALEXNET)
    batches = loader()
    records = measured({"published": tmp_path}, model=Thousand(), batches=batches)
    errors = {(r.setting["corruption"], r.setting["severity"]): 1 - r.value for r in records if "severity" in r.setting}
    (found,) = [record for record in records if record.metric == "mCE"]
    by_hand = np.mean(
        [
            sum(errors[n, s] for s in range(1, 6)) / sum(_mean_corruption_error.ALEXNET[n])
            for n in _mean_corruption_error.ALEXNET
        ]
    )
    assert found.value == pytest.approx(by_hand)
    (found,) = [record for record in records if record.metric == "relative mCE"]
    clean = 1 - robusttune.evaluate(Thousand(), batches, "clean", progress=False)[0].value
    ratios = [
        sum(errors[n, s] - clean for s in range(1, 6))
        / sum(e - _mean_corruption_error.ALEXNET_CLEAN for e in _mean_corruption_error.ALEXNET[n])
        for n in _mean_corruption_error.ALEXNET
    ]
    assert found.value == pytest.approx(np.mean(ratios))
    for which, model in (
        ({"published": tmp_path}, fitted()),
        ({"published": tmp_path, "severities": [1, 2]}, Thousand()),
        ({"names": ["fog"]}, Thousand()),
    ):
        assert not [r for r in measured(which, model=model) if "mCE" in r.metric]


def test_looks_at_the_same_image_are_no_independent_trials():
    alike = repeated("corruptions", [50 * 10, 50 * 100, 100], 10)
    assert alike.interval == wilson(50, 100)
    scattered = repeated("corruptions", [500, 100 * 25, 100], 10)
    assert scattered.interval == wilson(500, 1000)
    assert repeated("corruptions", [0, 0, 100], 10).interval == wilson(0, 100)
    with pytest.raises(ValueError, match="saw no images"):
        repeated("corruptions", [0, 0, 0], 10)


def test_the_interval_of_a_mean_holds_the_truth_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(400):
        ease = torch.rand(200, 1, generator=generator)  # images differ, so that looks at one of them agree
        times = (torch.rand(200, 10, generator=generator) < ease).sum(1)
        low, high = repeated("corruptions", [int(times.sum()), int((times**2).sum()), 200], 10).interval
        held += low <= 0.5 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_the_report_shows_them_in_a_table_of_their_own(tmp_path):
    records = measured()
    text = unpadded(robusttune.report({"before": records, "after": records}, tmp_path).read_text(encoding="utf-8"))
    assert "<summary>Corruptions</summary>" in text
    assert "| corruption | severity 1 | severity 5 | mean |" in text
    assert text.count("made here, severities for 32 px, 8 bits") >= 3
    assert "Corruptions were made in memory" in text
    assert (tmp_path / "corruptions.png").read_bytes()[:4] == b"\x89PNG"
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert html.count("data:image/png;base64,") == 1  # the heat map; there is no sweep and so no curve
    assert "<th>corruption</th>" in html
    assert 'src="corruptions.png"' not in html
    summary = text.split("<summary>Corruptions</summary>")[0]
    assert "corruptions, accuracy, weather" in summary
    assert "gaussian_noise" not in summary
    model = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 10))
    remember(model, ["fog"])
    with pytest.warns(UserWarning, match="was trained on fog"):
        records = measured(model=model)
    assert "* in training" in robusttune.report(records, tmp_path).read_text(encoding="utf-8")
