"""Published benchmarks: real pictures written in each layout, read back value for value, and bad folders refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from robusttune.corruptions._published import Published
from robusttune.evaluations import _mean_corruption_error

COUNT = 12
PAIR = ("fog", "snow")


def pictures(count=COUNT, side=32):
    """Digits, in colours that differ, as uint8 (N,side,side,3), and their labels."""
    digits, labels = load_digits(return_X_y=True)
    levels = (digits[:count].reshape(-1, 8, 8) * 15).astype(np.uint8)
    large = [np.array(Image.fromarray(each).resize((side, side), Image.Resampling.NEAREST)) for each in levels]
    return np.stack([np.stack([each, each // 2, 255 - each], -1) for each in large]), labels[:count].astype(np.int64)


def arrays(root, labels_of=lambda labels: np.tile(labels, 5), names=PAIR):
    """CIFAR-10-C's layout; the images get darker with the severity and differ by corruption."""
    images, labels = pictures()
    for number, name in enumerate(names):
        np.save(root / f"{name}.npy", np.concatenate([images // severity + number for severity in range(1, 6)]))
    np.save(root / "labels.npy", labels_of(labels))
    return images, labels


def digits(root, names=("identity", "zigzag")):
    """MNIST-C's layout."""
    images, labels = pictures(side=28)
    for number, name in enumerate(names):
        (root / name).mkdir()
        np.save(root / name / "test_images.npy", images[..., :1] // (1 + number))
        np.save(root / name / "test_labels.npy", labels)
        np.save(root / name / "train_images.npy", np.zeros(3))
    return images[..., :1], labels


def folders(root, names=PAIR, levels=("1", "2", "3", "4", "5"), suffix="JPEG", family=""):
    """ImageNet-C's layout, with classes n0…n9 by digit."""
    images, labels = pictures()
    for name in names:
        for number, level in enumerate(levels, 1):
            for row, (image, label) in enumerate(zip(images, labels, strict=True)):
                folder = root / family / name / level / f"n{label}"
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image // number).save(folder / f"val_{row:03}.{suffix}", quality=95)
    return images, labels


def read(source, corruption, severity, **settings):
    parts = list(source.batches(corruption, severity, **settings))
    return torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts])


def test_arrays_are_read_value_for_value(tmp_path):
    images, labels = arrays(tmp_path)
    source = Published(tmp_path)
    assert (source.corruptions, source.severities) == (["fog", "snow"], [1, 2, 3, 4, 5])
    assert source.count("snow", 4) == COUNT
    got, targets = read(source, "snow", 4, batch_size=5)
    assert torch.equal(got, torch.from_numpy(images // 4 + 1).permute(0, 3, 1, 2))
    assert torch.equal(targets, torch.from_numpy(labels))
    assert targets.dtype == torch.int64


def test_grey_arrays_of_one_severity_are_read(tmp_path):
    images, labels = digits(tmp_path)
    source = Published(tmp_path)
    assert (source.corruptions, source.severities) == (["identity", "zigzag"], [None])
    got, targets = read(source, "zigzag", None, batch_size=7)
    assert torch.equal(got, torch.from_numpy(images // 2).permute(0, 3, 1, 2))
    assert torch.equal(targets, torch.from_numpy(labels))


@pytest.mark.parametrize("suffix", ["JPEG", "jpg", "png"])
@pytest.mark.parametrize("family", ["", "weather"])
def test_folders_are_read_as_pillow_reads_them(tmp_path, suffix, family):
    _, labels = folders(tmp_path, suffix=suffix, family=family)
    (tmp_path / family / "fog" / "1" / "n0" / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden").mkdir()
    source = Published(tmp_path)
    assert source.corruptions == ["fog", "snow"]
    got, targets = read(source, "fog", 2, batch_size=5)
    assert targets.tolist() == sorted(labels.tolist())
    first = sorted((tmp_path / family / "fog" / "2" / "n0").iterdir())[0]
    assert torch.equal(got[0], torch.from_numpy(np.array(Image.open(first).convert("RGB"))).permute(2, 0, 1))


def test_severities_named_by_their_strength_are_put_in_order(tmp_path):
    folders(tmp_path, levels=("10.0", "0.80", "2.5", "5", "7.25"))
    source = Published(tmp_path)
    means = [float(read(source, "fog", severity)[0].float().mean()) for severity in (1, 2, 3, 4, 5)]
    strengths = ["0.80", "2.5", "5", "7.25", "10.0"]
    for mean, strength in zip(means, strengths, strict=True):
        files = (tmp_path / "fog" / strength).rglob("*.JPEG")
        assert mean == pytest.approx(np.mean([np.array(Image.open(file)).mean() for file in files]), abs=1e-3)


def test_a_class_that_one_corruption_lacks_does_not_shift_the_others(tmp_path):
    folders(tmp_path)
    for path in (tmp_path / "fog" / "3" / "n0").iterdir():
        path.unlink()
    (tmp_path / "fog" / "3" / "n0").rmdir()
    _, labels = read(Published(tmp_path), "fog", 3)
    assert sorted(set(labels.tolist())) == list(range(1, 10))


def test_classes_are_chosen_and_numbered_by_the_list(tmp_path):
    folders(tmp_path)
    source = Published(tmp_path, wnids=["n7", "n1"])
    _, labels = read(source, "snow", 5)
    assert sorted(labels.tolist()) == [0, 1, 1]
    with pytest.raises(ValueError, match=r"wnids= holds 'n99', but there is no such folder: one that exists is 'n9'"):
        Published(tmp_path, wnids=["n1", "n99"])


@pytest.mark.parametrize("layout", [arrays, digits, folders], ids=lambda layout: layout.__name__)
def test_a_subset_is_the_same_images_under_each_corruption(tmp_path, layout):
    layout(tmp_path)
    source = Published(tmp_path)
    rows = source.subset(5, seed=3)
    assert rows == source.subset(5, seed=3) != source.subset(5, seed=4)
    labels = [
        read(source, name, level, rows=rows)[1].tolist() for name in source.corruptions for level in source.severities
    ]
    assert len(labels[0]) == 5
    assert all(each == labels[0] for each in labels)
    with pytest.raises(ValueError, match="images=13, but there are only 12"):
        source.subset(13, seed=0)


def test_only_what_is_asked_for_is_opened(tmp_path):
    arrays(tmp_path)
    (tmp_path / "snow.npy").write_bytes(b"broken")
    assert len(read(Published(tmp_path), "fog", 1)[0]) == COUNT


def test_only_the_pictures_of_a_batch_are_opened(tmp_path, monkeypatch):
    folders(tmp_path)
    opened = []
    plain = Image.open
    monkeypatch.setattr(Image, "open", lambda path, *rest: opened.append(path) or plain(path, *rest))
    next(Published(tmp_path).batches("fog", 1, batch_size=3))
    assert len(opened) == 3


def test_arrays_are_mapped_and_not_loaded(tmp_path, monkeypatch):
    arrays(tmp_path)
    modes = []
    plain = np.load
    monkeypatch.setattr(
        np, "load", lambda path, mmap_mode=None: modes.append(mmap_mode) or plain(path, mmap_mode=mmap_mode)
    )
    read(Published(tmp_path), "fog", 1)
    assert set(modes) == {"r"}


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="is no folder: download the benchmark"):
        Published(tmp_path / "nothing")


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match=r"holds train, but no layout that is known: CIFAR-10-C"):
        Published(tmp_path)


def test_unknown_corruptions_and_severities(tmp_path):
    arrays(tmp_path)
    source = Published(tmp_path)
    with pytest.raises(ValueError, match=r"has no 'fogg' \(did you mean 'fog'\?\): there are fog, snow"):
        next(source.batches("fogg", 1))
    with pytest.raises(ValueError, match="severity is 6"):
        next(source.batches("fog", 6))


def test_labels_that_do_not_fit(tmp_path):
    arrays(tmp_path, labels_of=lambda labels: labels)
    with pytest.raises(ValueError, match=r"labels.npy has the shape \(12,\)"):
        Published(tmp_path)


def test_arrays_of_another_kind(tmp_path):
    arrays(tmp_path)
    np.save(tmp_path / "fog.npy", np.zeros((60, 32, 32, 3), np.float32))
    with pytest.raises(ValueError, match=r"fog.npy holds float32 of shape .* but uint8 \(N,H,W,C\)"):
        read(Published(tmp_path), "fog", 1)


def test_arrays_with_labels_take_no_list_of_classes(tmp_path):
    arrays(tmp_path)
    with pytest.raises(ValueError, match="wnids= chooses folders of classes"):
        Published(tmp_path, wnids=["n1"])


def test_a_severity_that_is_missing(tmp_path):
    folders(tmp_path, levels=("1", "2", "3"))
    with pytest.raises(
        ValueError, match=r"has the severities \['1', '2', '3'\], but five are needed: download the benchmark again"
    ):
        read(Published(tmp_path), "fog", 1)


def test_pictures_of_different_sizes(tmp_path):
    folders(tmp_path)
    Image.new("RGB", (20, 20)).save(tmp_path / "fog" / "1" / "n0" / "val_000.JPEG")
    with pytest.raises(ValueError, match=r"differ in size \(\(20, 20\) and \(32, 32\)\)"):
        read(Published(tmp_path), "fog", 1)


def test_a_class_without_pictures(tmp_path):
    folders(tmp_path)
    (tmp_path / "fog" / "1" / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no picture .*: download the benchmark again"):
        read(Published(tmp_path, wnids=["empty"]), "fog", 1)


# Mean errors in percent, which several publications give beside the single ones.
ALEXNET_MEANS = {
    "gaussian_noise": 88.6428,
    "shot_noise": 89.4468,
    "impulse_noise": 92.2640,
    "defocus_blur": 81.9880,
    "glass_blur": 82.6268,
    "motion_blur": 78.5948,
    "zoom_blur": 79.8360,
    "snow": 86.6816,
    "frost": 82.6572,
    "fog": 81.9324,
    "brightness": 56.4592,
    "contrast": 85.3204,
    "elastic_transform": 64.6056,
    "pixelate": 71.7840,
    "jpeg_compression": 60.6500,
}


def test_alexnets_errors_have_their_published_means():
    assert {
        name: round(20 * sum(errors), 4) for name, errors in _mean_corruption_error.ALEXNET.items()
    } == ALEXNET_MEANS


@pytest.mark.parametrize("clean", [0.0, _mean_corruption_error.ALEXNET_CLEAN])
def test_alexnet_itself_has_a_relative_error_of_one(clean):
    weights = _mean_corruption_error.weights(clean=clean)
    errors = {
        (name, s): _mean_corruption_error.ALEXNET[name][s - 1] - clean
        for name in reversed(_mean_corruption_error.ALEXNET)
        for s in _mean_corruption_error.SEVERITIES
    }
    assert sum(weights[key] * error for key, error in errors.items()) == pytest.approx(1)


def test_mce_weighs_each_corruption_by_alexnets_errors():
    half = dict.fromkeys(_mean_corruption_error.weights(), 0.5)
    by_hand = sum(2.5 / sum(errors) for errors in _mean_corruption_error.ALEXNET.values()) / 15
    assert sum(_mean_corruption_error.weights()[key] * half[key] for key in half) == pytest.approx(by_hand)


def test_what_is_missing_is_named_and_bad_baselines_are_refused():
    keys = [
        (name, severity) for name in _mean_corruption_error.ALEXNET for severity in _mean_corruption_error.SEVERITIES
    ]
    assert not _mean_corruption_error.missing(keys)
    assert _mean_corruption_error.missing(keys[1:]) == [("gaussian_noise", 1)]
    with pytest.raises(ValueError, match="errors on fog are"):
        _mean_corruption_error.weights({"fog": [0.5, 0.5]})
    with pytest.raises(ValueError, match="errors on fog are"):
        _mean_corruption_error.weights({"fog": [0.1] * 5}, clean=0.2)
