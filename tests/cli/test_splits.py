"""Splits of a command's data: the one that chooses the epoch, images in two of them, images that cannot be read."""

import json
import logging
import re
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from brightness import write
from PIL import Image

from robusttune.cli import folders, main
from robusttune.cli.image_sizes import with_size
from robusttune.cli.options import Sources
from robusttune.cli.sources import loader_of

# timm's data sets leave the files that they have read to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:no weight of the model has changed"),
]

MODEL = ["--model", "brightness:Net", "--model_args", "{classes: 3}", "--size", "8", "--channels", "1"]
QUICK = ["--epochs", "1", "--tasks", "null", "--steps", "1", "--lr", "0", "--ema", "0"]
ABC = {"a": 0, "b": 1, "c": 2}


def fill(folder, first, count):
    """Images of three classes; numbers from `first` on are the images' own."""
    for name, row in ABC.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            pixels = np.full((8, 8), round((row + 0.5) / 3 * 255), np.uint8)
            pixels.flat[number % 64] += 1 + number // 64
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "data/train", 0, 8)
    fill(tmp_path / "data/val", 20, 3)
    fill(tmp_path / "data/test", 30, 3)
    return tmp_path / "data"


def ran(capsys, command, *more):
    capsys.readouterr()
    code = main([command, *more])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def hardened(capsys, out, *more, progress="false"):
    options = [*MODEL, "--data", "data", *QUICK, "--out", out, "--progress", progress]
    return ran(capsys, "harden", *options, *more)


def facts(out):
    run = json.loads(Path(out, "run.json").read_text(encoding="utf-8"))
    return run["command"]["val_split"], run["data"]["images"], run["about"]["held_out"]


def measured(capsys, *more):
    trust = [] if "--model" in more else ["--trust", "true"]  # the runs name a function
    code, out, said = ran(capsys, "evaluate", *more, *trust, "--which", "clean", "--progress", "false")
    found = re.search(r"accuracy \| ([\d.]+)%", out)
    return code, None if found is None else float(found[1]), said


def test_val_beside_train_chooses_the_epoch_and_is_said(data, capsys):
    code, _, said = hardened(capsys, "a", progress="true")
    assert code == 0
    assert facts("a") == ("val", 24, "val_loader")
    line = "the split 'val' was found beside 'train', and chooses the epoch; with --val_split none, 5% of the training"
    assert line in said
    assert "held out      9 images of the split 'val', to choose the epoch by" in said
    counts = (
        "'data': train 24 images in 3 class folders, test 9 images in 3 class folders, val 9 images in 3 class folders"
    )
    assert counts in said
    assert hardened(capsys, "b") == (
        0,
        said
        and "hardened: b/model.safetensors\nnext: robusttune evaluate b --model brightness:Net --data data --split test --out b/evaluation\n",
        "",
    )


@pytest.mark.parametrize("word", ["none", "null", "None"])
def test_none_switches_it_off_and_a_split_can_be_named(word, data, capsys):
    assert hardened(capsys, "a", "--val_split", word)[0] == 0
    assert facts("a") == (None, 24, None)
    assert hardened(capsys, "b", "--val_split", "test")[0] == 0
    assert facts("b") == ("test", 24, "val_loader")
    assert hardened(capsys, "c", "--split", "val", "--val_split", "auto")[0] == 0
    assert facts("c") == (None, 9, None)


def test_a_split_that_was_found_and_does_not_fit_is_not_used_and_this_is_said(data, capsys):
    (data / "val/a").rename(data / "val/x")
    code, _, said = hardened(capsys, "a")
    assert (code, facts("a")) == (0, (None, 24, None))
    assert "robusttune: warning: 'val' beside 'train' cannot choose the epoch" in said
    assert "has images of the classes x" in said
    code, _, said = hardened(capsys, "b", "--val_split", "val")
    assert (code, said.startswith("robusttune: error: the split 'val' of 'data' has images of the classes x")) == (
        1,
        True,
    )


def test_a_run_that_goes_on_or_is_replayed_keeps_its_split(data, capsys):
    shutil.move(data / "val", data.parent / "later")
    assert hardened(capsys, "old")[0] == 0
    shutil.move(data.parent / "later", data / "val")  # as for a folder of the version that did not look for it
    assert hardened(capsys, "new")[0] == 0
    assert (facts("old")[0], facts("new")[0]) == (None, "val")
    for out in ("old", "new"):
        before = facts(out)
        assert hardened(capsys, out, "--resume", "true")[0] == 0
        assert facts(out) == before
        code, printed, _ = ran(capsys, "replay", out, "--trust", "true")
        assert (code, "the same weights, bit for bit" in printed, "the data's" in printed) == (0, True, False)
    code, _, said = hardened(capsys, "old", "--resume", "true", "--val_split", "val")
    assert code == 1
    assert "chooses its epoch by 5% of its training images, so it cannot go on with --val_split 'val': leave" in said
    assert hardened(capsys, "new", "--resume", "true", "--val_split", "val")[0] == 0


def test_a_split_that_is_trained_on_is_warned_of_as_judge_and_as_test(data, capsys):
    code, _, said = hardened(capsys, "a", "--val_split", "train")
    assert (code, facts("a")[0]) == (0, "train")
    assert "warning: the images in 'data/train' are those that are trained on, so they do not show which epoch" in said
    options = [*MODEL, "--data", "data", "--test_split", "training", "--progress", "false", "--arms", "no such"]
    assert "so a test on them does not show" in ran(capsys, "poc", *options)[2]


@pytest.mark.slow
def test_estimate_and_harden_take_the_same_images(data, capsys):
    code, printed, _ = ran(capsys, "estimate", *MODEL, "--data", "data", *QUICK, "--progress", "false")
    assert code == 0
    assert "judging | 108 forward" in printed  # of nine images
    assert ran(capsys, "estimate", *MODEL, "--data", "data", *QUICK, "--val_split", "none")[1].count("judging") == 0


def test_images_in_two_splits_are_warned_of_with_two_examples(data, capsys):
    for number, name in enumerate(ABC):
        shutil.copy(data / f"train/{name}/{number}.png", data / f"test/{name}/again.png")
    code, _, said = hardened(capsys, "a")
    assert code == 0
    start = "robusttune: warning: 3 images of the split 'train' are in the split 'test', too ("
    assert said.startswith(start)
    assert (
        "data/train/a/0.png is data/test/a/again.png; data/train/b/1.png is data/test/b/again.png): remove them" in said
    )
    assert "again.png; data/train/c" not in said
    code, accuracy, said = measured(capsys, *MODEL, "--data", "data", "--split", "test")
    assert (code, accuracy) == (0, 100.0)
    assert "3 images of the split 'test' are in the split 'train', too" in said


def test_evaluate_compares_with_the_images_of_the_run(data, capsys, tmp_path):
    assert hardened(capsys, "a")[0] == 0
    assert measured(capsys, "a", "--data", "data", "--split", "test") == (0, 100.0, "")
    assert "was trained on these images" in measured(capsys, "a", "--data", "data", "--split", "train")[2]
    judged = measured(capsys, "a", "--data", "data")[2]
    assert "chose its epoch by these images" in judged
    assert "pass --split test for images that it has not seen" in judged
    fill(tmp_path / "other", 50, 2)
    assert measured(capsys, "a", "--data", "other") == (0, 100.0, "")
    shutil.copy(data / "train/b/3.png", tmp_path / "other/b/3.png")
    said = measured(capsys, "a", "--data", "other")[2]
    assert (
        "1 image of the split that is measured is in the training images of 'a', too (other/b/3.png is data/train/b/3.png)"
        in said
    )
    assert (
        "1 image of the split that is measured is in"
        in measured(capsys, *MODEL, "--checkpoint", "a", "--data", "other")[2]
    )
    data.rename(tmp_path / "gone")
    assert measured(capsys, "a", "--data", "other") == (0, 100.0, "")


def test_images_that_cannot_be_read_are_named_once_and_counted_at_the_end(data, capsys, caplog):
    (data / "test/a/30.png").write_bytes(b"no image")
    whole = (data / "test/b/31.png").read_bytes()
    (data / "test/b/31.png").write_bytes(whole[:-30])
    more = [
        *MODEL,
        "--data",
        "data",
        "--split",
        "test",
        "--which",
        "clean",
        "sweep",
        "--progress",
        "false",
        "--seed",
        "1",
    ]
    code, _, said = ran(capsys, "evaluate", *more)
    assert code == 0
    last = "robusttune: warning: 2 of 9 images could not be read, and the next ones took their places: "
    assert last + "'data/test/a/30.png', 'data/test/b/31.png'" in said
    named = [message for message in caplog.messages if "cannot be read" in message]
    assert len(named) == 2
    assert named[0] == "'data/test/a/30.png' cannot be read (it is no image): the next image takes its place"
    (data / "test/a/30.png").unlink()
    (data / "test/b/31.png").write_bytes(whole)
    assert ran(capsys, "evaluate", *more)[2] == ""


def test_workers_tell_of_images_that_they_could_not_read(data):
    (data / "train/a/1.png").write_bytes(b"no image")
    loader = loader_of(Sources("", "data", size=8, channels=1, batch_size=4, workers=2))
    for _ in range(2):
        assert sum(len(images) for images, _ in loader) == 24
    assert loader.dataset.unread.nonzero().tolist() == [[1]]


def of_size(whole, side):
    """A PNG file that says that it is this large, of which Pillow takes no more than 179 million pixels."""
    head = whole[12:16] + struct.pack(">II", side, side) + whole[24:29]
    return whole[:12] + head + struct.pack(">I", zlib.crc32(head)) + whole[33:]


DAMAGED = [
    lambda whole: b"",
    lambda whole: whole[: len(whole) // 2],
    lambda whole: whole[:-30],
    lambda whole: whole.replace(b"IDAT", b"IDAX"),
    lambda whole: whole[:45] + b"\xff" * 8 + whole[53:],
    lambda whole: whole.replace(b"IHDR", b"JHDR"),
    lambda whole: of_size(whole, 20_000),
]


@pytest.mark.parametrize("number", range(len(DAMAGED)))
def test_images_may_be_damaged_in_any_way(number, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    write(tmp_path, ABC, classes=3)
    path = tmp_path / "a/0.png"
    path.write_bytes(DAMAGED[number](path.read_bytes()))
    loader = loader_of(Sources("", str(tmp_path), size=8, channels=1))
    (batch,) = loader
    assert len(batch[0]) == 3
    assert (len(caplog.messages), int(loader.dataset.unread.sum())) == (1, 1)


def test_nothing_but_damaged_images_is_an_error(tmp_path):
    for number in range(folders.RETRIES):
        for name in "ab":
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(
        ValueError,
        match=r"10 images in a row cannot be read, up to '.*a/9.png': they may be damaged; restore or remove them",
    ):
        loader_of(Sources("", str(tmp_path), size=8)).dataset[0]


def test_an_image_of_too_many_pixels_is_named_and_does_not_end_a_command(tmp_path, caplog):
    write(tmp_path / "train", ABC, classes=3)
    path = tmp_path / "train/a/0.png"
    path.write_bytes(of_size(path.read_bytes(), 20_000))
    sources = with_size(Sources("", str(tmp_path)), None, None)
    assert (sources.size, sources.channels) == (8, 1)
    assert len(next(iter(loader_of(sources)))[0]) == 3
    assert "a/0.png' cannot be read (Image size (400000000 pixels) exceeds limit" in caplog.text
