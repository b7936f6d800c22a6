"""A look at the data before a run: what is wrong with folders, which split chooses the epoch, and shared images."""

import shutil
from pathlib import Path

import pytest
from brightness import write
from PIL import Image

from robusttune.cli import look, main
from robusttune.cli.options import Sources

# timm's data sets leave the files that they have read to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def ran(capsys, command, data, *more):
    """The exit code of a command, what it prints, and what it says."""
    options = ["--model", "brightness:Net", "--model_args", "{classes: 3}", "--size", "8", "--progress", "false"]
    code = main([command, *options, "--data", str(data), *more])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


ABC = {"a": 0, "b": 1, "c": 2}
CLEAN = ["--split", "train", "--which", "clean"]


def nothing(folder):
    folder.mkdir()


def texts(folder):
    folder.mkdir()
    for name in "abcd":
        (folder / f"{name}.txt").touch()


def an_empty_split(folder):
    (folder / "train").mkdir(parents=True)
    write(folder / "test", ABC, classes=3)


def one_class(folder):
    write(folder, {"a": 0}, classes=3)


def one_level_too_many(folder):
    write(folder / "images", ABC, classes=3)


def no_classes(folder):
    folder.mkdir()
    Image.new("L", (8, 8)).save(folder / "0.png")


FAULTS = [
    (nothing, "data': it is empty; images have the endings .png, .jpg"),
    (texts, "data': it holds a.txt, b.txt, c.txt …; images have"),
    (an_empty_split, "data/train': it is empty; images have"),
    (one_class, "has images of a single class, 'a', but a classifier needs at least two"),
    (one_level_too_many, "has one folder, 'images', whose folders hold the images: pass --data"),
    (no_classes, "put the images of each class into a folder with its name"),
]


@pytest.mark.parametrize(("made", "says"), FAULTS, ids=[made.__name__ for made, _ in FAULTS])
@pytest.mark.parametrize("command", ["evaluate", "harden"])
def test_a_folder_that_is_no_data_set_is_described(command, made, says, tmp_path, capsys):
    made(tmp_path / "data")
    more = CLEAN if command == "evaluate" else ["--out", str(tmp_path / "out")]
    code, printed, said = ran(capsys, command, tmp_path / "data", *more)
    assert (code, printed) == (1, "")
    assert says in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("data", ["nowhere", "no/where", "/no/where"])
def test_a_path_that_is_not_there_is_said(data, capsys):
    code, _, said = ran(capsys, "evaluate", data, *CLEAN)
    assert (code, f"{data!r} is not there: pass a folder of images" in said) == (1, True)


def test_a_part_of_a_folder_cannot_be_asked_for(tmp_path, capsys):
    write(tmp_path / "train", ABC, classes=3)  # timm would read all of it
    code, _, said = ran(capsys, "evaluate", tmp_path, *CLEAN, "--split", "train[:10%]")
    assert (code, "split is 'train[:10%]', but a folder is read as a whole" in said) == (1, True)


def test_pretrain_takes_images_without_class_folders(tmp_path, capsys):
    no_classes(tmp_path / "data")
    Image.new("L", (8, 8), 200).save(tmp_path / "data" / "1.png")
    more = ["--tasks", "{rotation: 1}", "--max-steps", "1", "--out", str(tmp_path / "out")]
    code, _, said = ran(capsys, "pretrain", tmp_path / "data", *more)
    assert (code, said) == (0, "")


def test_a_test_set_of_one_class_is_taken_where_the_classes_are_known(tmp_path, capsys):
    write(tmp_path / "data", {"b": 1}, classes=3)
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    code, printed, said = ran(
        capsys, "evaluate", tmp_path / "data", *CLEAN, "--classes_file", str(tmp_path / "names.txt")
    )
    assert (code, "100.0%" in printed, "has no image of 2 of 3 classes: a, c" in said) == (0, True, True)
    (tmp_path / "more").mkdir()
    shutil.move(tmp_path / "data", tmp_path / "more/val")
    write(tmp_path / "more/train", ABC, classes=3)
    code, printed, said = ran(capsys, "evaluate", tmp_path / "more", "--which", "clean")
    assert (code, "100.0%" in printed, "has no image of 2 of 3 classes: a, c" in said) == (0, True, True)


def test_splits_are_those_that_timm_reads(tmp_path):
    for name in ("training", "val", "test", "other"):
        write(tmp_path / name, ABC, classes=3)
    (tmp_path / "eval").mkdir()
    assert look.split_folder(tmp_path, "train") == tmp_path / "training"
    assert look.split_folder(tmp_path, "validation[:50%]") == tmp_path / "val"
    assert look.split_folder(tmp_path, "test") == tmp_path / "test"
    assert look.split_folder(tmp_path, "holdout") == tmp_path
    assert sorted(look.splits_in(tmp_path)) == ["test", "training", "val"]
    assert look.validation_beside(Sources("", str(tmp_path))) == "val"
    assert look.validation_beside(Sources("", str(tmp_path), split="test")) is None
    assert look.validation_beside(Sources("", str(tmp_path / "training"))) is None


def copies(folder, contents):
    """Files with these contents."""
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return sorted(str(folder / name) for name in contents)


def test_shared_images_are_found_by_content_alone(tmp_path):
    long = b"x" * 5000
    first = copies(tmp_path / "1", {"a": b"one", "b": b"two", "c": b"a" + long, "d": b"", "e": b"unlike"})
    second = copies(tmp_path / "2", {"z": b"two", "y": b"b" + long, "x": b"a" + long, "w": b"owt", "v": b"a" + long})
    shared = look.shared_images(first, second)
    assert shared.complete
    pairs = {(Path(one).name, Path(other).name) for one, other in shared.pairs}
    assert pairs == {("b", "z"), ("c", "x"), ("c", "v")}


def test_files_whose_size_is_in_one_list_alone_are_not_read(tmp_path, monkeypatch):
    first = copies(tmp_path / "1", {"a": b"1", "b": b"22", "c": b"333", "d": b"55555"})
    second = copies(tmp_path / "2", {"a": b"4444", "b": b"xx", "c": b"333"})
    read, opened = [], open

    def counted(path, *rest):
        read.append(str(path))
        return opened(path, *rest)

    monkeypatch.setattr(look, "open", counted, raising=False)
    assert look.shared_images(first, second).pairs == [(first[2], second[2])]
    assert sorted(read) == sorted([first[1], second[1], *2 * [first[2], second[2]]])


def test_where_there_is_no_time_the_comparison_is_not_complete_and_files_that_are_gone_match_nothing(tmp_path):
    first, second = (copies(tmp_path / name, {"a": b"1"}) for name in "12")
    assert look.shared_images(first, second, patience=-1) == ([], False)
    assert look.shared_images([*first, str(tmp_path / "gone")], [str(tmp_path / "gone")]).pairs == []


def test_counts_name_class_folders(tmp_path):
    write(tmp_path / "data", {**ABC, ".hidden": 0}, classes=3)
    images = look.images_under(tmp_path / "data")
    assert look.count_in_words(tmp_path / "data", images) == "3 images in 3 class folders"
    assert look.count_in_words(tmp_path / "data/a", look.images_under(tmp_path / "data/a")) == "1 image"
    shutil.rmtree(tmp_path / "data/a")
    (tmp_path / "data/b/0.png").rename(tmp_path / "data/b/0.JPG")
    assert len(look.images_under(tmp_path / "data")) == 2
    assert len(look.images_under(tmp_path / "data", ".png")) == 1
