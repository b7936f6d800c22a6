"""Image files of all endings and modes: each is read right, or said, or refused."""

import io
import struct
from collections import Counter

import numpy as np
import pytest
import torch
from brightness import numbered, write
from PIL import Image, TiffImagePlugin

from robusttune.augmentations._augment import is_random
from robusttune.cli import image_files
from robusttune.cli.options import Sources
from robusttune.cli.sources import loader_of
from robusttune.data.transforms import transforms_of

# timm's data sets leave the files that they have read to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

LEVELS = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000


def reread(image, kind, **settings):
    """An image as it is read from a file of this kind."""
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return Image.open(io.BytesIO(file.getvalue()))


def twelve_bits(levels):
    """A TIFF file of grey levels (H,W) below 4096, packed in 12 bits each."""
    flat = levels.ravel()
    packed = bytearray()
    for one, two in zip(flat[::2], flat[1::2], strict=True):
        packed += bytes([one >> 4, (one & 15) << 4 | two >> 8, two & 255])
    height, width = levels.shape
    tags = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8 + 2 + 12 * 9 + 4, 277: 1, 278: height}
    tags[279] = len(packed)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + bytes(packed)


def test_16_bits_in_every_kind_of_file():
    deep = Image.fromarray(LEVELS)
    for kind in ("PNG", "TIFF", "PPM", "JPEG2000"):
        for mode in ("L", "RGB"):
            read = image_files.converted(reread(deep, kind), mode)
            np.testing.assert_allclose(np.asarray(read), LEVELS / 65535, atol=1e-6)


def test_tiff_files_that_call_0_white_or_have_12_bits():
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    read = image_files.converted(reread(Image.fromarray(LEVELS), "TIFF", tiffinfo=tags), "L")
    np.testing.assert_allclose(np.asarray(read), 1 - LEVELS / 65535, atol=1e-6)
    levels = LEVELS // 1000 * 60
    read = image_files.converted(Image.open(io.BytesIO(twelve_bits(levels))), "L")
    np.testing.assert_allclose(np.asarray(read), levels / 4095, atol=1e-6)


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "CMYK", "L"])
def test_other_modes_are_read_as_their_colours(mode):
    grey = Image.fromarray((LEVELS // 1000 * 4).astype(np.uint8))
    image = grey.convert("RGB").convert(mode) if mode in ("CMYK", "P") else grey.convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    read = np.asarray(image_files.converted(reread(image, kind), "RGB")).astype(int)
    true = (
        np.asarray(image.convert("RGB")).astype(int) if mode in ("1", "P") else np.asarray(grey)[..., None].astype(int)
    )
    assert np.abs(read - true).max() <= 1


@pytest.mark.parametrize("ending", [".TIF", ".tiff", ".webp", ".bmp", ".gif", ".JPEG", ".PNG", ".pgm", ".jp2", ".avif"])
def test_files_of_all_endings_are_images(ending, tmp_path):
    if ending.lower() not in image_files.ENDINGS:
        pytest.skip(f"Pillow reads no {ending} here")
    write(tmp_path / "train", numbered("abc"), classes=3, ending=ending)
    loader = loader_of(Sources("", str(tmp_path), size=8, channels=1, batch_size=3))
    images, labels = next(iter(loader))
    assert (images.mean((1, 2, 3)) * 3 - 0.5).round().long().tolist() == labels.tolist() == [0, 1, 2]


def test_files_that_are_no_images_are_named(tmp_path, capsys):
    write(tmp_path / "train", {**numbered("ab"), "c": None}, classes=3)
    for row in range(3):
        (tmp_path / "train" / "c" / f"{row}.heic").write_bytes(b"")
    (tmp_path / "train" / "a" / "notes.txt").write_text("beside")
    (tmp_path / "train" / "a" / "._0.png").write_bytes(b"of another system")
    with pytest.raises(
        ValueError, match=r"for the classes c \(3 files with the ending .heic are no images that can be"
    ):
        loader_of(Sources("", str(tmp_path), size=8, channels=1))
    (tmp_path / "train" / "c" / "0.png").write_bytes((tmp_path / "train" / "a" / "0.png").read_bytes())
    capsys.readouterr()
    assert len(loader_of(Sources("", str(tmp_path), size=8, channels=1)).dataset) == 3
    said = capsys.readouterr().err
    assert "3 files with the ending .heic are no images that can be read in the split 'train'" in said
    assert "1 images in the split 'train'" in said
    assert ".txt" not in said


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "0.dcm").write_bytes(b"")
    with pytest.raises(ValueError, match=r"1 file with the ending \.dcm is no image that can be read; images have the"):
        loader_of(Sources("", str(tmp_path), size=8))


def test_what_is_dropped_is_said(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 16)).save(tmp_path / "train" / "a" / "0.jpg", exif=exif)
    Image.new("RGBA", (8, 8)).save(tmp_path / "train" / "b" / "0.png")
    Image.new("L", (8, 8)).save(
        tmp_path / "train" / "b" / "1.gif", save_all=True, append_images=[Image.new("L", (8, 8), 9)]
    )
    loader = loader_of(Sources("", str(tmp_path), size=8))
    assert next(iter(loader))[0].shape == (3, 3, 8, 8)
    said = capsys.readouterr().err
    assert "0.jpg' are turned by their EXIF orientation where people see them, and are read as they are stored" in said
    assert "0.png' are transparent in parts" in said
    assert "1.gif' hold several pictures, of which the first is read" in said


def test_survey_and_unread():
    assert image_files.unread(Counter()) is None
    assert (
        image_files.unread(Counter({".b": 1, ".a": 2}))
        == "3 files with the endings .a, .b are no images that can be read"
    )


def test_no_step_of_the_transform_counts_as_random(tmp_path):
    write(tmp_path / "train", numbered("ab"), classes=2)
    for data in ({"data": str(tmp_path)}, {"data": "torch/image_folder", "data_dir": str(tmp_path)}):
        loader = loader_of(Sources("", size=8, **data))
        assert len(transforms_of(loader)) >= 5
        assert not any(map(is_random, transforms_of(loader)))
        torch.testing.assert_close(next(iter(loader))[0].mean((1, 2, 3)), torch.tensor([0.25, 0.75]), atol=2e-3, rtol=0)
