"""Who may import whom, that what is public can be called, and that the tests mirror the packages."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import robusttune

PACKAGE = Path(robusttune.__file__).parent
# A package imports only from layers above its own line here; a module beside the packages is a package, too.
LAYERS = [
    {"types"},
    {"plugins"},
    {"run", "norms", "objectives"},
    {"threat", "data"},
    {"model"},
    {"corruptions", "attacks", "tasks"},
    {"augmentations", "measuring"},
    {"evaluations", "training"},
    {"trial", "sharing", "integration"},
    {"cli"},
    {"__main__"},
]
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")

TESTS = Path(__file__).parents[1]
# Folders of tests that are not of one package.
BESIDE = {
    "benchmarks": "programs that measure time",
    "examples": "the programs in examples/",
    "promises": "what users are promised, across packages",
    "repository": "what the repository asks of itself",
    "support": "what tests share",
}
# Files of tests that are not of one module, and why.
ACROSS = {
    "cli/test_poc.py": "the command `robusttune poc` from end to end",
    "corruptions/test_references.py": "corruptions against the pictures of other programs",
    "run/test_resume.py": "runs that are killed and resumed",
    "training/test_launch.py": "scripts under torchrun and accelerate launch",
    "training/test_work.py": "passes of a step, counted over attacks, objectives and tasks",
}


def imports_of(source, *, for_types=True):
    """The modules and folders of robusttune that a source imports, at the top or anywhere inside.

    Args:
        for_types: whether imports below `if TYPE_CHECKING:` count.
    """
    tree = ast.parse(source)
    if not for_types:
        tree.body = [node for node in tree.body if not is_for_types(node)]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            # `from robusttune import plugins` imports a module, `from robusttune.threat import LossOf` a name of one.
            dotted = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        parts = [name.split(".") for name in dotted]
        found |= {part[1] if len(part) > 1 else "__init__" for part in parts if part[0] == "robusttune"}
    return found


def is_for_types(node):
    """True for `if TYPE_CHECKING:` and what stands below it."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def place_of(path):
    """The module, or the folder of a plug-in."""
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def too_high(place, imported):
    """The packages that are imported although they do not stand in a layer before the importer's own."""
    return {name for name in imported - {place} if LAYER.get(name, len(LAYERS)) >= LAYER[place]}


def test_the_package_shows_its_architecture():
    entries = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    packages = {path.removesuffix(".py") for path in entries - {"__init__.py", "py.typed"}}
    assert packages == set(LAYER)
    assert len(entries) <= 22
    assert not packages & set(robusttune.__all__), "a package that shares its name with a public function hides it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_package_imports_only_from_layers_above_its_own(path):
    # The look-up of plug-ins serves every kind, and so its types name the contracts of all of them.
    for_types = path != PACKAGE / "plugins.py"
    assert not too_high(place_of(path), imports_of(path.read_text(encoding="utf-8"), for_types=for_types))


@pytest.mark.parametrize(
    ("place", "line", "wrong"),
    [
        ("tasks", "from robusttune.threat import ThreatModel", set()),
        ("tasks", "from robusttune.attacks.pgd import pgd", {"attacks"}),
        ("tasks", "from robusttune.tasks._view import View", set()),
        ("threat", "def later():\n    import robusttune.training.loop.step as step", {"training"}),
        ("threat", "from robusttune import plugins, training", {"training"}),
        ("training", "import torchattacks", set()),
        ("plugins", "if TYPE_CHECKING:\n    from robusttune.attacks import Attack", {"attacks"}),
    ],
)
def test_the_layer_test_sees_imports_from_below(place, line, wrong):
    assert too_high(place, imports_of(line)) == wrong


def test_imports_for_types_can_be_left_out():
    line = "if TYPE_CHECKING:\n    from robusttune.attacks import Attack\nelse:\n    from robusttune import run"
    assert imports_of(line) == {"attacks", "run"}
    assert imports_of(f"import robusttune.norms\n{line}", for_types=False) == {"norms"}


def mirrors(test):
    """Tell if a file of tests, relative to `tests/`, has the name of a module, or of its whole package."""
    name = test.stem.removeprefix("test_")
    package = PACKAGE / test.parent
    return name == package.name or any((package / f"{prefix}{name}.py").exists() for prefix in ("", "_"))


def test_the_tests_mirror_the_packages():
    tests = [path.relative_to(TESTS) for path in TESTS.rglob("test_*.py")]
    odd = {str(test) for test in tests if test.parts[0] not in BESIDE and not mirrors(test)}
    assert odd == set(ACROSS)
    folders = {path.name for path in TESTS.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert set(BESIDE) == folders - set(LAYER)


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("training/test_ema.py", True),
        ("tasks/test_heads.py", True),
        ("norms/test_norms.py", True),
        ("test_threat.py", True),
        ("training/test_emas.py", False),
        ("model/test_ema.py", False),
    ],
)
def test_the_mirror_test_sees_other_names(test, expected):
    assert mirrors(Path(test)) == expected


def test_public_names_are_callable_once_every_module_is_imported():
    # A function and a module share names such as `harden`: whichever was set last on the package is what users get.
    for module in pkgutil.walk_packages([str(PACKAGE)], "robusttune."):
        importlib.import_module(module.name)
    names = robusttune.__all__
    assert names
    assert len(names) == len(set(names))
    for name in names:
        assert callable(getattr(robusttune, name)), name


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.parent.name != "cli" and path.name != "__main__.py"],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_the_library_does_not_print(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
