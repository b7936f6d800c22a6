"""The tutorial: its photographs, its commands in order, its pictures, and the same steps as a notebook."""

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / name for name in ("tutorial.md", "gallery.md")]
NOTEBOOK = ROOT / "examples" / "tutorial.ipynb"
LARGEST_PICTURE, LARGEST_NOTEBOOK = 150_000, 1_000_000


@pytest.fixture
def module(monkeypatch):
    """A program of examples/ or docs/ by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module


@pytest.fixture
def photographs(module):
    pytest.importorskip("skimage")
    return module("photographs")


def regions_of(photographs, height, width):
    """For each pixel of a photograph, the number of the split that it belongs to."""
    rows, columns = height // photographs.TILE, width // photographs.TILE
    splits = np.zeros((height, width), np.uint8)
    for row in range(rows):
        for column in range(columns):
            (top, bottom), (left, right) = (
                photographs.edges(row, rows, height),
                photographs.edges(column, columns, width),
            )
            splits[top:bottom, left:right] = list(photographs.SPLITS).index(photographs.split_of(row, column))
    return splits


@pytest.mark.parametrize("shape", [(300, 451), (512, 512), (427, 640)])
def test_pieces_of_different_splits_share_no_pixel(shape, photographs, monkeypatch):
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    picture[..., 0] = regions_of(photographs, *shape)  # so that a piece tells where it is from
    monkeypatch.setattr(photographs, "photograph", lambda name: picture)
    generator = photographs.torch.Generator().manual_seed(0)
    for number, split in enumerate(photographs.SPLITS):
        for _ in range(100):
            assert set(np.unique(np.array(photographs.piece("cat", split, generator))[..., 0])) == {number}


def test_the_photographs_are_in_folders_by_split_and_class(photographs, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "photographs"
    monkeypatch.setattr("sys.argv", ["photographs.py", str(folder), "--train", "2", "--validation", "1", "--test", "1"])
    photographs.main()
    assert f"{folder}/train: 2 images in each of 8 folders" in capsys.readouterr().out
    counts = {split: len(list((folder / split).glob("*/*.jpg"))) for split in photographs.SPLITS}
    assert counts == {"train": 16, "validation": 8, "test": 8}
    with pytest.raises(SystemExit):
        photographs.main()
    assert "is there already: name a new folder" in capsys.readouterr().err


def test_output_is_compared_without_numbers_and_times(module):
    run_tutorial = module("run_tutorial")
    shown = [
        "| in all | 1 min 2 s for 8 epochs |",
        "…",
        "kept epoch 5: 91.0% are right",
        "| p | +0.6 | 1 |",
        "the rest …",
    ]
    printed = ["first", "| in all    | 58 s for 8 epochs |", "middle", "kept epoch 7: 88.5% are right  "]
    printed += ["| p | -31.5 | 8.2e-12 |", "the rest is not shown"]
    assert run_tutorial.matched(shown, printed) == [printed[1], "…", printed[3].rstrip(), printed[4], "the rest …"]
    for wrong in (["kept epoch 5: 91.0% are wrong"], shown[::-1]):
        with pytest.raises(ValueError, match="which was not printed; what was printed"):
            run_tutorial.matched(wrong, printed)


def test_the_steps_of_the_page_are_read_in_order(module):
    steps = module("run_tutorial").steps_of(PAGES[0].read_text(encoding="utf-8"))
    assert [" ".join(step.command.split()[:2]) for step in steps] == [
        "robusttune doctor",
        "python examples/photographs.py",
        "robusttune estimate",
        "robusttune harden",
        "robusttune evaluate",
        "robusttune evaluate",
        "robusttune report",
        "python examples/gallery.py",
        "robusttune compare",
    ]
    assert all(step.shown for step in steps if "gallery" not in step.command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_pictures_of_a_page_are_there_small_and_described(page):
    pictures = re.findall(r"!\[(.*?)\]\((.*?)\)", page.read_text(encoding="utf-8"))
    assert len(pictures) >= 4
    for words, file in pictures:
        assert len(words) > 20
        assert 1000 < (page.parent / file).stat().st_size < LARGEST_PICTURE


def test_the_notebook_is_that_of_its_script_with_outputs(module):
    pytest.importorskip("nbclient")
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    written = [(cell["cell_type"], cell["source"]) for cell in module("write_notebook").cells()]
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]] == written, (
        "run python docs/write_notebook.py"
    )
    assert NOTEBOOK.stat().st_size < LARGEST_NOTEBOOK
    check_outputs(notebook["cells"])


def check_outputs(cells):
    """Each cell of code that ends in a value shows it; there are bars, tables and pictures, and no path of a machine."""
    kinds = {}
    for number, output in ((number, each) for number, cell in enumerate(cells) for each in cell.get("outputs", ())):
        assert output["output_type"] != "error"
        for kind in output.get("data", {"stream": None}):
            kinds.setdefault(kind, set()).add(number)
    assert len(kinds["image/jpeg"]) == 3
    assert len(kinds["image/png"]) == 1
    assert len(kinds["text/html"]) == 2
    text = json.dumps([cell.get("outputs", ()) for cell in cells])
    assert "100%|" in text
    assert "epoch 8/8" in text
    assert not re.search(r"site-packages|/tmp/|/home/|/root/|/Users/", text)


@pytest.mark.slow
def test_the_commands_of_the_page_print_what_it_shows(module, tmp_path):
    pytest.importorskip("skimage")
    run_tutorial = module("run_tutorial")
    page = PAGES[0].read_text(encoding="utf-8")
    followed = run_tutorial.follow(page, tmp_path)
    assert [step.command for step in run_tutorial.steps_of(followed)] == [
        step.command for step in run_tutorial.steps_of(page)
    ]
    assert (tmp_path / "pictures" / "attacked.jpg").stat().st_size < LARGEST_PICTURE


@pytest.mark.slow
def test_the_notebook_runs(module, tmp_path):
    for name in ("nbclient", "ipykernel", "skimage"):
        pytest.importorskip(name)
    check_outputs(module("write_notebook").executed(tmp_path).cells)
