"""Labels go by the names of folders: generated class folders through `robusttune evaluate`, and images of all bit depths."""

import json
import random
import re
import unicodedata

import numpy as np
import pytest
import torch
from brightness import Net, numbered, write
from PIL import Image
from safetensors.torch import save_file

from robusttune.cli import folders, image_files, main
from robusttune.cli.options import Sources
from robusttune.cli.prepared import names_in_file
from robusttune.cli.sources import loader_of
from robusttune.data.class_names import in_timm_order

# timm's data sets leave the files that they have read to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def evaluated(capsys, data, classes, *more):
    """The exit code, the accuracy that is printed, and what is said."""
    options = ["--model", "brightness:Net", "--model_args", f"{{classes: {classes}}}", "--data", str(data)]
    options += ["--size", "8", "--which", "clean", "--progress", "false", *more]
    code = main(["evaluate", *options])
    shown = capsys.readouterr()
    found = re.search(r"accuracy \| ([\d.]+)%", shown.out)
    return code, None if found is None else float(found[1]), shown.err


LETTERS = list("abcdefghijkl")
NUMBERS = sorted(map(str, range(12)))


def test_16_bits_are_scaled_by_65535(tmp_path, capsys):
    write(tmp_path / "train", numbered(LETTERS), classes=12, deep=True)
    for channels in ("1", "3"):
        assert evaluated(capsys, tmp_path, 12, "--split", "train", "--channels", channels) == (0, 100.0, "")
    loader = loader_of(Sources("", str(tmp_path), size=8, channels=3, batch_size=12))
    images, _ = next(iter(loader))
    assert images.shape == (12, 3, 8, 8)
    torch.testing.assert_close(images[:, 1].mean((1, 2)), (torch.arange(12) + 0.5) / 12, atol=2e-5, rtol=0)


def test_numbers_whose_largest_is_not_known_are_refused():
    with pytest.raises(ValueError, match="32-bit numbers, and does not say which of them is white"):
        image_files.converted(Image.fromarray(np.ones((4, 4), np.float32)), "L")


def test_a_class_without_an_image_in_the_split_keeps_its_place(tmp_path, capsys):
    write(tmp_path / "train", numbered(LETTERS), classes=12)
    write(tmp_path / "validation", {**numbered(LETTERS), "c": None}, classes=12)
    (tmp_path / "validation" / "b" / "0.png").unlink()
    code, accuracy, said = evaluated(capsys, tmp_path, 12)
    assert (code, accuracy) == (0, 100.0)
    assert "has no image of 2 of 12 classes: b, c" in said


def test_hidden_folders_inside_class_folders_are_left_out(tmp_path, capsys):
    write(tmp_path / "train", {"a": 0, "a/.ipynb_checkpoints": 1, "b": 1, "c": 2}, classes=3)
    code, accuracy, said = evaluated(capsys, tmp_path, 3, "--split", "train")
    assert (code, accuracy) == (0, 100.0)
    assert re.search(r"\d images in .* lie in no class folder, or are hidden: they are left out", said)


def test_a_folder_of_hidden_images_alone_is_no_class(tmp_path, capsys):
    write(tmp_path / "train", {"__MACOSX": 0, "a": 0, "b": 1}, classes=2)
    for path in (tmp_path / "train" / "__MACOSX").iterdir():
        path.rename(path.with_name(f"._{path.name}"))
    code, accuracy, said = evaluated(capsys, tmp_path, 2, "--split", "train")
    assert (code, accuracy) == (1, None)
    assert "has no image for the classes __MACOSX" in said
    assert "remove the empty folders" in said


def test_numbers_that_can_be_sorted_in_two_ways_are_refused_and_a_file_of_names_decides(tmp_path, capsys):
    by_number = list(map(str, range(12)))
    for order in (NUMBERS, by_number):
        data = tmp_path / f"{order[2]}"
        write(data / "train", numbered(order), classes=12)
        code, accuracy, said = evaluated(capsys, data, 12, "--split", "train")
        assert (code, accuracy) == (1, None)
        assert "class 2 may be '10' (sorted as text, as torchvision's ImageFolder numbers them: 0, 1, 10" in said
        assert "or '2' (sorted by number, as timm does" in said
        (data / "names.txt").write_text("\n".join(order) + "\n")
        file = ["--classes_file", str(data / "names.txt")]
        assert evaluated(capsys, data, 12, "--split", "train", *file) == (0, 100.0, "")


@pytest.mark.parametrize(("text", "said"), [("\n \n", "has no names"), ("cat\ndog\ncat\n", "has cat more than once")])
def test_a_file_of_classes_names_each_once(text, said, tmp_path):
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(ValueError, match=rf"names\.txt' {said}: write the name of each class once, one a line"):
        names_in_file(str(tmp_path / "names.txt"))


def test_a_new_head_gets_the_order_of_image_folder(tmp_path):
    write(tmp_path / "train", numbered(NUMBERS), classes=12)
    loader = loader_of(Sources("timm:test_resnet", str(tmp_path), size=8, batch_size=12))
    images, labels = next(iter(loader))
    assert loader.dataset.classes == NUMBERS
    assert (images.mean((1, 2, 3)) * 12 - 0.5).round().long().tolist() == labels.tolist()


UNCLEAR = [
    (
        {"a": 0, "b": 1, "c": None},
        3,
        "has no image for the classes c, so the others can be numbered with them or without",
    ),
    ({"a/x": 0, "a/y": 1, "b/z": 2}, 3, "may be 'a' (the first folder"),
    ({"": 0}, 3, "no folder of images for each class"),
    ({"a": 0, "b": 1}, 3, "the model has 3 outputs, but there are 2 classes (a, b)"),
    ({"a": 0, "b": 1, "c": 2, "d": 2}, 3, "the model has 3 outputs, but there are 4 classes (a, b, c, d)"),
]


@pytest.mark.parametrize(("rows", "classes", "says"), UNCLEAR, ids=[str(each) for each in range(len(UNCLEAR))])
def test_folders_that_can_be_read_in_two_ways_are_refused(rows, classes, says, tmp_path, capsys):
    write(tmp_path / "train", rows, classes=classes)
    code, accuracy, said = evaluated(capsys, tmp_path, classes, "--split", "train")
    assert (code, accuracy) == (1, None)
    assert says in said


def test_a_class_whose_folder_is_a_link_to_nowhere_is_not_lost(tmp_path, capsys):
    write(tmp_path / "train", {"a": 0, "b": 1}, classes=2)
    (tmp_path / "train" / "notes.txt").symlink_to("nowhere")
    assert evaluated(capsys, tmp_path, 2, "--split", "train")[:2] == (0, 100.0)
    (tmp_path / "train" / "c").symlink_to("/nowhere/c")
    code, _, said = evaluated(capsys, tmp_path, 2, "--split", "train")
    assert code == 1
    assert "has no image for the classes c" in said


def test_images_beside_the_class_folders_are_left_out_and_said(tmp_path, capsys):
    rows = {"a": 0, "b": 1, ".thumbnails": 0, "": 1}
    (tmp_path / "train").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "train" / "preview.png")
    write(tmp_path / "train", {name: row for name, row in rows.items() if name}, classes=2)
    code, accuracy, said = evaluated(capsys, tmp_path, 2, "--split", "train")
    assert (code, accuracy) == (0, 100.0)
    assert "2 images in the split 'train'" in said
    assert "are left out" in said


def test_names_that_stand_twice_keep_their_places_or_are_refused():
    assert folders.by_name(["crane", "dog", "crane"], ["crane", "dog", "crane"], "it") == ({0: 0, 1: 1, 2: 2}, [])
    with pytest.raises(ValueError, match="two of them have the same name: crane; rename one"):
        folders.by_name(["crane", "dog"], ["crane", "dog", "crane"], "it")


def test_accents_are_the_same_in_both_ways_of_writing_them(tmp_path, capsys):
    names = ["caf\N{LATIN SMALL LETTER E WITH ACUTE}", "bar"]
    write(tmp_path / "train", {unicodedata.normalize("NFD", names[0]): 0, names[1]: 1}, classes=2)
    for source in ("file", "checkpoint"):
        more = options_with_names(source, tmp_path, names)
        if source == "file":
            (tmp_path / "names.txt").write_text("\n".join(names), encoding="utf-8-sig")  # as Windows writes it
        assert evaluated(capsys, tmp_path, 2, "--split", "train", *more)[:2] == (0, 100.0)


def drawn_names(chance, count):
    pools = {
        "letters": LETTERS,
        "numbers": list(map(str, range(12))),
        "from one": [f"class {number}" for number in range(1, 13)],
        "unicode": ["Äpfel", "éa", "猫", "犬", "кот", "ß", "a b", "B", "b", "_x", "10", "9"],
    }
    return chance.sample(pools[chance.choice(sorted(pools))], count)


ENDINGS = [".png", ".PNG", ".tif", ".bmp", ".webp", ".gif", ".pgm"]


def options_with_names(source, data, order):
    """The options by which the model's names are known, in their order."""
    if source == "checkpoint":
        torch.save({"model": Net(len(order)).state_dict(), "class_to_idx": numbered(order)}, data / "theirs.pth")
        return ["--checkpoint", str(data / "theirs.pth")]
    if source == "metadata":
        names = json.dumps(dict(enumerate(order)))
        save_file(Net(len(order)).state_dict(), data / "theirs.safetensors", {"id2label": names})
        return ["--checkpoint", str(data / "theirs.safetensors")]
    (data / "names.txt").write_text("\n".join(order), encoding="utf-8")
    named = {"file": ["--classes_file", str(data / "names.txt")]}
    return {**named, "class map": ["--data_args", json.dumps({"class_map": str(data / "names.txt")})]}.get(source, [])


@pytest.mark.sample(2)
@pytest.mark.parametrize("part", range(10))
def test_generated_folders_give_the_true_accuracy_or_are_refused(part, tmp_path, capsys):
    right = 0
    for seed in range(50 * part, 50 * part + 50):
        chance, data = random.Random(seed), tmp_path / str(seed)
        count = chance.randint(2, 12)
        names = drawn_names(chance, count)
        order = chance.choice([sorted, in_timm_order, list])(names)
        by_names = chance.random() < 0.5 or order not in (sorted(names), in_timm_order(names))
        source = chance.choice(["file", "checkpoint", "metadata", "class map"]) if by_names else None
        by_file = source is not None
        flat, trained = chance.random() < 0.3, chance.random() < 0.7
        known = by_file or (
            trained and not flat
        )  # else nobody can tell a renamed folder from one that always had this name
        rows, test = numbered(order), dict(numbered(order))
        changes = ["missing", "empty", "extra", "renamed"] if known else ["missing", "empty"]
        if source == "class map":  # the folders that it does not name are left out, which is said
            changes = ["missing", "empty"]
        for change in chance.sample(changes, chance.choice([0, 0, 1, 2])):
            name = chance.choice(sorted(test))
            row = test.pop(name) if change != "extra" and len(test) > 2 else None
            test |= {"empty": {name: None}, "extra": {"zz": 0}, "renamed": {f"{name}2": row}}.get(change, {})
        shape = {"classes": count, "deep": chance.random() < 0.3, "size": chance.choice([8, 9, 16])}
        shape["ending"] = chance.choice([".png", ".PNG", ".tif", ".TIFF"] if shape["deep"] else ENDINGS)
        write(data if flat else data / "val", test, **shape)
        if not flat and trained:
            write(data / "train", rows, **shape)
        more = options_with_names(source, data, order)
        code, accuracy, said = evaluated(capsys, data, count, "--channels", chance.choice("13"), *more)
        assert (code, accuracy) in ((0, 100.0), (1, None)), (seed, order, test, said)
        right += code == 0
        if by_file and set(test) <= set(order) | {name for name, row in test.items() if row is None}:
            assert code == 0, (seed, order, test, said)
    assert right >= 15
