"""The documentation's Python runs as it is printed; the parts that it adds keep the contracts of their kinds."""

import ast
import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import robusttune
from robusttune import plugins
from robusttune.cli.parser import parse

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r'^```python(?: title="(.*?)")?\n(.*?)^```', re.DOTALL | re.MULTILINE)
CONTRACTS = {
    "norms": ["norms/test_norms"],
    "attacks": ["attacks/test_attacks"],
    "objectives": [],
    "tasks": ["tasks/test_tasks"],
    "corruptions": ["corruptions/test_corruptions"],
    "augmentations": ["augmentations/test_augmentations"],
    "evaluations": [],
    "measuring.sections": [],
}
PAGES = sorted(path for path in DOCS.rglob("*.md") if BLOCK.search(path.read_text(encoding="utf-8")))


def blocks_of(page):
    """(title, code) of each block of Python; those with a title are files of the package."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def added():
    """The files that pages add to the package, {path: code}."""
    return {title: code for page in PAGES for title, code in blocks_of(page) if title}


def kind_of(path):
    """The kind of a part by its file's path in the package, such as "attacks" or "measuring.sections"."""
    return ".".join(Path(path).parts[1:-1])


def named(page):
    return str(page.relative_to(DOCS).with_suffix(""))


def digits(first, last, side=32):
    """Handwritten digits as colour images on [0,1], (N,3,side,side)."""
    data = pytest.importorskip("sklearn.datasets").load_digits()
    images = torch.tensor(data.images[first:last] / 16, dtype=torch.float32)[:, None]
    images = nn.functional.interpolate(images, side).expand(-1, 3, -1, -1).contiguous()
    return torch.utils.data.TensorDataset(images, torch.tensor(data.target[first:last]))


def a_model():
    torch.manual_seed(0)
    body = nn.Conv2d(3, 8, 5, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()
    return nn.Sequential(*body, nn.Linear(128, 10))


def published(folder):
    """A folder as CIFAR-10-C comes: fifty images, ten for each severity."""
    folder.mkdir(parents=True)
    images = (digits(0, 50).tensors[0].permute(0, 2, 3, 1) * 255).byte().numpy()
    for name in plugins.names("corruptions"):
        np.save(folder / f"{name}.npy", images)
    np.save(folder / "labels.npy", digits(0, 50).tensors[1].numpy())


@pytest.fixture
def a_place(tmp_path, monkeypatch):
    """An empty folder to work in, with the files of this page in a folder that the package looks into, too."""

    def holding(page):
        for title, code in blocks_of(page):
            if title:
                path = tmp_path / title
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(code, encoding="utf-8")
                kind = importlib.import_module(f"robusttune.{kind_of(title)}")
                monkeypatch.setattr(kind, "__path__", [*kind.__path__, str(path.parent)])
                monkeypatch.delitem(sys.modules, f"{kind.__name__}.{path.stem}", raising=False)
                importlib.invalidate_caches()
        return tmp_path

    monkeypatch.chdir(tmp_path)
    return holding


@pytest.mark.filterwarnings("ignore:.*held-out accuracy", "ignore:.*in training", "ignore:.*a model that guesses")
@pytest.mark.filterwarnings("ignore:.*LeafSpec", "ignore:.*does not have many workers")  # both of Lightning
@pytest.mark.parametrize("page", PAGES, ids=named)
def test_the_python_of_a_page_runs(page, a_place):
    folder = a_place(page)
    if "CIFAR-10-C" in page.read_text(encoding="utf-8"):
        published(folder / "data" / "CIFAR-10-C")
    loader = torch.utils.data.DataLoader(digits(0, 64), 32, shuffle=True)
    names = {
        "robusttune": robusttune,
        "model": a_model(),
        "loader": loader,
        "unlabeled_loader": loader,
        "held_out": loader,
        "val_loader": torch.utils.data.DataLoader(digits(76, 88), 12),
        "test_loader": torch.utils.data.DataLoader(digits(64, 76), 12),
        "images": digits(0, 4).tensors[0],
    }
    before = names["model"][0].weight.detach().clone()
    for title, code in blocks_of(page):
        if title:
            found = plugins.find(kind_of(title), Path(title).stem)
            module = sys.modules[f"robusttune.{kind_of(title)}.{Path(title).stem}"]
            assert Path(module.__file__).is_relative_to(folder)
            assert callable(found)
        else:
            exec(compile(code, str(page), "exec"), names)
    if any("harden(" in code for _, code in blocks_of(page)):
        assert not torch.equal(names["model"][0].weight, before)


def test_every_kind_has_a_page_with_a_file():
    folders = {path.name for path in Path(robusttune.__file__).parent.iterdir() if (path / "__init__.py").exists()}
    kinds = {name for name in folders if name.endswith("s")}  # plural: a kind that is extended by one file
    assert {kind_of(path) for path in added()} == kinds | {"measuring.sections"} == set(CONTRACTS)
    assert all((DOCS / "extending" / f"{kind.rpartition('.')[2]}.md").exists() for kind in CONTRACTS)


def test_every_public_name_is_in_the_reference():
    pages = "".join(path.read_text(encoding="utf-8") for path in sorted((DOCS / "api").glob("*.md")))
    named = set(re.findall(r"^::: robusttune\.[\w.]*?(\w+)$", pages, re.MULTILINE))
    assert not set(robusttune.__all__) - named


def test_every_page_of_the_reference_and_every_guide_is_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:")[1]
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert not {page for page in pages if not page.startswith("benchmarks/") and f" {page}\n" not in menu + "\n"}


COMMANDS = [
    (path.name, line)
    for path in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    for line in re.findall(r"^robusttune (?:\w.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    if line in "".join(re.findall(r"^```sh\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE))
]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda value: value[:40])
def test_commands_on_pages_have_options_that_exist(page, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs/a/finetune").mkdir(parents=True)
    facts = {"run": "harden", "arguments": {}, "command": {"model": "timm:resnet18", "size": 224}}
    for folder in ("runs/a", "runs/a/finetune"):
        Path(folder, "run.json").write_text(json.dumps(facts))  # evaluate reads it for its options
    assert parse(shlex.split(line)[1:]).command == line.split()[1]


def test_commands_are_found():
    assert {line.split()[1] for _, line in COMMANDS} >= {"harden", "evaluate", "report", "compare", "doctor"}


@pytest.fixture(scope="module")
def a_copy(tmp_path_factory):
    """A copy of the package and its tests, in which the files of all pages lie in their folders."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("robusttune", "tests", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    for path, code in added().items():
        (folder / path).write_text(code, encoding="utf-8")
    return folder


@pytest.mark.slow
def test_parts_that_pages_add_keep_the_contracts_of_their_kinds(a_copy):
    files = added()
    wanted = ["test_threat", "repository/test_layers", *(name for names in CONTRACTS.values() for name in names)]
    chosen = " or ".join([*(Path(path).stem for path in files), "every_file_exports", "test_objectives_give"])
    pytest_itself = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-rA", "-p", "no:cacheprovider", "-k", chosen]
    tests = [*(f"tests/{name}.py" for name in wanted), *files]
    ran = subprocess.run([*pytest_itself, *tests], cwd=a_copy, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
    passed = re.findall(r"^PASSED (.+)$", ran.stdout, re.MULTILINE)
    for path in files:
        kind, name = kind_of(path), Path(path).stem
        own = [test for test in passed if name in test]
        assert len(own) >= (10 if CONTRACTS[kind] else 2), (name, own)


@pytest.mark.parametrize("command", [["check"], ["format", "--diff"]], ids=" ".join)
def test_files_on_pages_are_linted_and_formatted(command, a_copy):
    ran = subprocess.run([sys.executable, "-m", "ruff", *command, *added()], cwd=a_copy, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_each_row_of_the_table_of_faults_names_a_test_that_exists_and_its_mark():
    rows = [line for line in (DOCS / "faults.md").read_text().splitlines() if line.startswith("| ") and "::" in line]
    assert len(rows) > 30
    for row in rows:
        file, name = re.search(r"`(tests/\S+\.py)::(\w+)`", row).groups()
        functions = [node for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)]
        (function,) = [node for node in functions if node.name == name]
        marks = [ast.unparse(decorator) for decorator in function.decorator_list]
        assert ("pytest.mark.slow" in marks) is row.endswith("(slow) |"), row
