"""The page on the architecture says what the code is: its picture, and the length of the core reading path."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST = 1000  # lines that are not blank, of the files that hold the method
STALE = 20


@pytest.fixture(scope="module")
def drawn():
    """The script that draws the picture and counts lines."""
    path = ROOT / "docs" / "draw_architecture.py"
    spec = importlib.util.spec_from_file_location("draw_architecture", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_shows_the_packages_as_they_are(drawn):
    assert drawn.PICTURE.read_text(encoding="utf-8") == drawn.picture(), "run: python docs/draw_architecture.py"


def test_every_package_is_in_the_picture(drawn):
    packages = {path.stem for path in (ROOT / "robusttune").iterdir() if not path.name.startswith("__i")}
    assert {name for row in drawn.layers(drawn.packages()) for name in row} == packages - {"__pycache__", "py"}


def test_the_core_path_is_short_and_its_length_is_stated(drawn):
    now = sum(drawn.length(drawn.PACKAGE / name) for name in drawn.CORE_PATH)
    stated = int(re.search(r"together \|\s*\| (\d+)", drawn.PAGE.read_text(encoding="utf-8"))[1])
    assert now <= MOST
    assert abs(stated - now) <= STALE, "run: python docs/draw_architecture.py"


def test_packages_that_import_each_other_are_named(drawn, tmp_path, monkeypatch):
    for name, other in (("one", "two"), ("two", "one")):
        (tmp_path / f"{name}.py").write_text(f"from robusttune.{other} import thing")
    monkeypatch.setattr(drawn, "PACKAGE", tmp_path)
    with pytest.raises(ValueError, match="these import each other: one, two"):
        drawn.layers(drawn.packages())
