"""Data sets by name: labels by the names that they hold, 16-bit images, and splits that are not there."""

import io
import json

import numpy as np
import pytest
import torch
from brightness import numbered, write
from PIL import Image

from robusttune.cli.labels import Labels, classes_of, names_of
from robusttune.cli.options import Sources
from robusttune.cli.sources import loader_of

# timm's data sets leave the files that they have read to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

NAMES = ["owl", "ant", "cat"]
DEEP = [np.full((8, 8), (row + 0.5) / 3 * 65535).astype(np.uint16) for row in range(3)]


def read(loader):
    """The classes of images by their brightness, and their labels."""
    images, labels = next(iter(loader))
    torch.testing.assert_close(
        images.mean((1, 2, 3)), ((images.mean((1, 2, 3)) * 3 - 0.5).round() + 0.5) / 3, atol=1e-4, rtol=0
    )
    return (images.mean((1, 2, 3)) * 3 - 0.5).round().long().tolist(), labels.tolist()


def named(data, **more):
    if data.startswith("hfids"):
        more = {"data_args": {"num_samples": 3}, **more}
    return Sources("", data, data_dir=more.pop("data_dir", "cache"), size=8, batch_size=3, **{"channels": 1, **more})


@pytest.fixture
def parquet(tmp_path, monkeypatch):
    """A function that writes images of 16 bits and their labels as Parquet; the folder is the working directory."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)

    def write_parquet(labels, kind=None, folder="mine"):
        of = datasets.ClassLabel(names=NAMES) if kind is None else datasets.Value(kind)
        features = datasets.Features({"image": datasets.Image(), "label": of})
        rows = {"image": [Image.fromarray(image) for image in DEEP], "label": labels}
        whole = datasets.Dataset.from_dict(rows, features=features)
        (tmp_path / folder).mkdir()
        whole.to_parquet(tmp_path / folder / "train-00000.parquet")
        whole.select([1]).to_parquet(tmp_path / folder / "test-00000.parquet")
        return whole

    return write_parquet


@pytest.mark.parametrize("reader", ["hfds", "hfids"])
def test_names_of_a_column_of_hugging_face_and_16_bits(reader, parquet, capsys):
    parquet([0, 1, 2])
    for channels in (1, 3):
        loader = loader_of(named(f"{reader}/mine", channels=channels))
        assert read(loader) == ([0, 1, 2], [0, 1, 2])
        assert names_of(loader.dataset) == NAMES
    loader = loader_of(named(f"{reader}/mine", split="test"), labels=Labels(("cat", "ant", "bee", "owl")))
    assert read(loader) == ([1], [1])
    assert read(loader_of(named(f"{reader}/mine"), labels=Labels(("cat", "ant", "bee", "owl")))) == (
        [0, 1, 2],
        [3, 1, 0],
    )
    with pytest.raises(ValueError, match="images of the classes owl, ant, which are not among"):
        loader_of(named(f"{reader}/mine"), labels=Labels(("cat", "dog")))
    with pytest.raises(ValueError, match="validation"):
        loader_of(named(f"{reader}/mine", split="validation"))


def test_a_column_of_numbers_has_no_names_which_is_said(parquet, capsys):
    parquet([0, 1, 2], "int64")
    loader = loader_of(named("hfds/mine"))
    assert read(loader) == ([0, 1, 2], [0, 1, 2])
    assert (names_of(loader.dataset), classes_of(loader)) == (None, None)
    assert "does not name its classes: its labels are taken for numbers from 0" in capsys.readouterr().err


def test_a_column_of_texts_is_numbered_by_name(parquet):
    parquet(NAMES, "string")
    loader = loader_of(named("hfds/mine"))
    assert names_of(loader.dataset) == ["ant", "cat", "owl"]
    assert read(loader) == ([0, 1, 2], [2, 0, 1])
    one = loader_of(named("hfds/mine", split="test"), labels=Labels(names_of(loader.dataset)))
    assert read(one) == ([1], [0])
    with pytest.raises(ValueError, match="a data set that is streamed does not list them"):
        loader_of(named("hfids/mine"))


def test_a_class_map_of_a_column(parquet):
    parquet([0, 1, 2])
    arguments = {"class_map": {"cat": 0, "owl": 1, "ant": 2}}
    loader = loader_of(named("hfds/mine", data_args=arguments))
    assert (read(loader), names_of(loader.dataset)) == (([0, 1, 2], [1, 2, 0]), ["cat", "owl", "ant"])


def test_a_cache_within_the_data_would_be_read_as_data(parquet):
    parquet([0, 1, 2])
    with pytest.raises(
        ValueError, match="which is 'mine' itself: its cache would be read as data; pass another folder"
    ):
        loader_of(named("hfds/mine", data_dir="."))


def test_a_data_set_that_was_saved_without_splits_is_refused(parquet, tmp_path):
    parquet([0, 1, 2]).save_to_disk(tmp_path / "single")
    with pytest.raises(ValueError, match="holds a single Dataset, without splits: save them together"):
        loader_of(named("hfds/single"))


@pytest.mark.parametrize("ending", ["png", "tif", "jpeg"])
def test_webdataset_reads_16_bits_and_every_ending(ending, tmp_path, capsys):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "train-0000.tar")) as tar:
        for row, pixels in enumerate(DEEP):
            held = io.BytesIO()
            image = Image.fromarray((pixels // 257).astype(np.uint8) if ending == "jpeg" else pixels)
            image.save(held, {"tif": "tiff"}.get(ending, ending))
            tar.write({"__key__": f"{row:04d}", ending: held.getvalue(), "cls": str(row).encode()})
    shard = {"name": "train", "filenames": ["train-0000.tar"], "shard_lengths": [3], "num_samples": 3}
    (tmp_path / "_info.json").write_text(json.dumps({"splits": {"train": shard}}))
    for channels in (1, 3):
        images, labels = next(iter(loader_of(named("wds/mine", data_dir=str(tmp_path), channels=channels))))
        assert (images.mean((1, 2, 3)) * 3 - 0.5).round().long().tolist() == labels.tolist() == [0, 1, 2]
        assert images.shape[1] == channels
    assert "does not name its classes: its labels are taken for numbers from 0" in capsys.readouterr().err
    loader = loader_of(named("wds/mine", data_dir=str(tmp_path)), labels=Labels(NAMES))
    assert names_of(loader.dataset) == NAMES
    assert "its labels are taken for those of the model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"json": b'{"label": 1}'}, "has no entry cls among json, png, but labels are whole numbers in cls"),
        ({"cls": b"owl"}, "has 'owl' in the entry cls among cls, png"),
    ],
    ids=["no label", "a text"],
)
def test_shards_without_labels_are_refused(entry, says, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    held = io.BytesIO()
    Image.new("L", (8, 8), 128).save(held, "png")
    with webdataset.TarWriter(str(tmp_path / "train-0000.tar")) as tar:
        tar.write({"__key__": "0000", "png": held.getvalue(), **entry})
    shard = {"name": "train", "filenames": ["train-0000.tar"], "shard_lengths": [1], "num_samples": 1}
    (tmp_path / "_info.json").write_text(json.dumps({"splits": {"train": shard}}))
    with pytest.raises(ValueError, match=says):
        loader_of(named("wds/mine", data_dir=str(tmp_path)))
    if "json" in entry:
        loader = loader_of(named("wds/mine", data_dir=str(tmp_path), data_args={"target_key": "label"}))
        assert next(iter(loader))[1].tolist() == [1]


def test_columns_of_a_stream_that_are_not_there_are_asked_for(parquet):
    parquet([0, 1, 2])
    with pytest.raises(
        ValueError, match="has the columns image, label, but images are read from 'image' and labels from"
    ):
        loader_of(named("hfids/mine", data_args={"num_samples": 3, "target_key": "fine"}))


def test_image_folder_of_torchvision(tmp_path):
    for split in ("train", "val"):
        write(tmp_path / split, numbered(NAMES), classes=3, deep=True)
    for channels in (1, 3):
        loader = loader_of(named("torch/image_folder", data_dir=str(tmp_path), split="validation", channels=channels))
        assert (read(loader), names_of(loader.dataset)) == (([1, 2, 0], [0, 1, 2]), sorted(NAMES))
    assert (
        read(loader_of(named("torch/image_folder", data_dir=str(tmp_path)), labels=Labels(NAMES))) == ([1, 2, 0],) * 2
    )
    with pytest.raises(
        ValueError, match=r"there is no split .test. in .*, whose folders are train, val: name one of them"
    ):
        loader_of(named("torch/image_folder", data_dir=str(tmp_path), split="test"))


def test_digits_of_torchvision_in_colour_and_a_split_that_is_not_there(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, levels in (("train", [0, 1, 2]), ("t10k", [2, 1])):
        pixels = np.stack([np.full((28, 28), (level + 0.5) / 3 * 255) for level in levels]).round().astype(np.uint8)
        head = b"".join(size.to_bytes(4, "big") for size in (2051, *pixels.shape))
        (raw / f"{split}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        head = b"".join(size.to_bytes(4, "big") for size in (2049, len(levels)))
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(head + bytes(levels))
    for split, levels in (("train", [0, 1, 2]), ("validation", [2, 1])):
        loader = loader_of(named("torch/mnist", data_dir=str(tmp_path), split=split, channels=3))
        images, labels = next(iter(loader))
        assert images.shape == (len(levels), 3, 8, 8)
        assert (images.mean((1, 2, 3)) * 3 - 0.5).round().long().tolist() == labels.tolist() == levels
        assert names_of(loader.dataset)[2] == "2 - two"
    for split in ("trian", "Train"):
        with pytest.raises(
            ValueError,
            match=f"there is no split '{split}' in 'torch/mnist', which has train and test: name one of them",
        ):
            loader_of(named("torch/mnist", data_dir=str(tmp_path), split=split))
