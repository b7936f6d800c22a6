"""The size and colour of the images in a folder, where the user has not said them."""

import numpy as np
import pytest
from PIL import Image

from robusttune.cli.image_sizes import with_size
from robusttune.cli.options import Sources


def folder(place, size, mode="RGB", count=3, split=""):
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    for number in range(count):
        path = place / split / "cat" / f"{size[0]}-{mode}-{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).convert(mode).save(path)
    return Sources("", str(place))


@pytest.mark.parametrize(
    ("size", "mode", "expected"),
    [((40, 32), "RGB", (32, 3)), ((28, 28), "L", (28, 1)), ((300, 400), "RGB", (224, 3)), ((32, 32), "LA", (32, 1))],
)
def test_the_files_say_it(size, mode, expected, tmp_path, capsys):
    found = with_size(folder(tmp_path, size, mode), None, None)
    assert (found.size, found.channels) == expected
    assert (
        f"images are read at {expected[0]} px in {'grey' if expected[1] == 1 else 'colour'}" in capsys.readouterr().err
    )


def test_grey_images_that_are_stored_in_colour_are_grey(tmp_path):
    place = tmp_path / "cat"
    place.mkdir()
    Image.fromarray(np.full((16, 16), 7, np.uint8)).convert("RGB").save(place / "a.png")
    assert with_size(Sources("", str(tmp_path)), None, None).channels == 1


def test_the_user_s_word_counts_and_the_split_is_looked_at(tmp_path, capsys):
    folder(tmp_path, (64, 64), split="validation")
    sources = folder(tmp_path, (32, 32), split="train")
    assert with_size(sources, None, None).size == 32
    assert (with_size(sources, 48, None).size, with_size(sources, None, 1).channels) == (48, 1)
    capsys.readouterr()
    with_size(sources, 48, 3)
    assert not capsys.readouterr().err


def test_the_line_names_only_what_was_read_from_the_files(tmp_path, capsys):
    sources = folder(tmp_path, (64, 64), count=3)
    with_size(sources, 48, None)
    assert "images are read in colour, as 3 files are: --channels changes it" in capsys.readouterr().err
    with_size(sources, None, 1)
    assert "images are read at 64 px, as 3 files are (at most 224 px): --size changes it" in capsys.readouterr().err
    folder(tmp_path, (64, 64), count=100)
    with_size(sources, None, None)
    assert "as 48 files that were looked at, of 100, are" in capsys.readouterr().err


def test_a_named_data_set_is_asked_about():
    with pytest.raises(
        ValueError, match=r"'torch/cifar10' is no folder whose files could be looked at: pass --size and --channels"
    ):
        with_size(Sources("", "torch/cifar10", data_dir="x"), None, 3)
    assert with_size(Sources("", "torch/cifar10", data_dir="x"), 32, 3).size == 32


def test_a_folder_without_images_is_left_to_its_reader(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "broken.png").write_text("no image")
    assert with_size(Sources("", str(tmp_path)), None, None).size == 224
