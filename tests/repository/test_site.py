"""The site: the table of arguments is that of the code, links to other places are well formed, and search works from the disk."""

import importlib.util
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import timm
import torch

import robusttune
from robusttune.training.presets import PRESETS
from robusttune.training.recipe import default_recipe
from robusttune.training.settings import Updates

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
FILLERS = re.compile(r"\b(?:meanwhile|comes out|is to be had)\b", re.IGNORECASE)  # see CONTRIBUTING.md


@pytest.fixture(scope="module")
def writer():
    """The script that writes the table of arguments."""
    spec = importlib.util.spec_from_file_location("write_arguments", DOCS / "write_arguments.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_arguments_is_that_of_the_code(writer):
    assert (DOCS / "arguments.md").read_text(encoding="utf-8") == writer.arguments(), (
        "run: python docs/write_arguments.py"
    )


def test_every_argument_is_in_one_group_and_its_default_is_a_value(writer):
    parameters = inspect.signature(robusttune.harden).parameters
    listed = [name for entries in writer.GROUPS.values() for name in entries]
    assert sorted(listed) == sorted(set(parameters) - {"model", "loader"})
    vague = {name for name in listed if parameters[name].default in (None, "auto")}
    assert vague == set(writer.values())


@pytest.mark.parametrize(("name", "side", "column"), [("test_resnet", 32, "small"), ("test_resnet", 224, "large")])
def test_the_table_of_arguments_shows_the_recipe(writer, name, side, column):
    model = timm.create_model(name, num_classes=10)
    recipe = default_recipe(model, torch.rand(1, 3, side, side), Updates(), PRESETS["standard"])
    shown = writer.values()
    assert f"{recipe.ema:g} {column}" in shown["ema"]
    assert f"{recipe.lr:g} {column}" in shown["lr"].split("; ")[0]
    assert f"{recipe.weight_decay:g} {column}" in shown["weight_decay"].split("; ")[0]


def test_links_to_other_places_are_well_formed():
    links = [
        (page.name, link)
        for page in PAGES
        for link in re.findall(r"\]\((\w+:[^)\s]*)\)", page.read_text(encoding="utf-8"))
    ]
    assert links
    for page, link in links:
        parts = urlsplit(link)
        assert parts.scheme == "https", (page, link)
        assert re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc), (page, link)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CONTRIBUTING.md"], ids=lambda page: page.stem)
def test_pages_leave_out_words_that_only_fill(page):
    assert not FILLERS.findall(page.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_search_works_on_pages_from_the_disk(tmp_path):
    pytest.importorskip("mkdocs")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    built = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")]
    subprocess.run(built, cwd=ROOT, check=True, capture_output=True)
    page = (tmp_path / "site" / "index.html").as_uri()
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}",
        "--virtual-time-budget=20000",
    ]
    asked = subprocess.run([chromium, *options, "--dump-dom", f"{page}?q=unlabeled"], capture_output=True, text=True)
    results = re.findall(
        r'href="file://[^"]*?/site/([\w./-]+\.html)[^"]*" class="md-search-result__link"', asked.stdout
    )
    assert "few-labels.html" in {result.rpartition("/")[2] for result in results}, asked.stdout[-2000:]
