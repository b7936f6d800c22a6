"""Who may import whom, and that what is public can be called."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import robusttune

PACKAGE = Path(robusttune.__file__).parent
# A module imports only from rows above its own line here; a folder stands for every file in it.
ROWS = [
    {"failures"},
    {
        "arguments",
        "lookup",
        "records",
        "pixels",
        "modes",
        "views",
        "shapes",
        "features",
        "norms",
        "processes",
        "checkpoint",
        "averages",
        "precision",
        "journal",
        "filters",
        "published",
        "mce",
        "trained_on",
        "crops",
        "provenance",
        "page",
        "traits",
        "differences",
        "criteria",
    },
    {
        "doctor",
        "threat",
        "classifier",
        "batches",
        "heads",
        "awp",
        "corruption",
        "fast",
        "memory",
        "footprint",
        "graphs",
        "trials",
    },
    {"foreign", "budget"},
    {
        "attacks",
        "objectives",
        "tasks",
        "corruptions",
        "augmentations",
        "schedule",
        "selection",
        "subject",
        "look",
        "conditions",
        "passes",
        "arms",
    },
    {"augment", "strangeness"},
    {"loss", "recipe", "load_heads"},
    {"evaluations", "sections", "chance", "validation", "stepping"},
    {"evaluate", "training"},
    {"tuning", "compute"},
    {"runs", "first_look", "trial", "planning", "trial_data"},
    {"harden", "pretrain", "report", "compare"},
    {"estimate", "monitor", "replay", "needs", "next_stage", "phases"},
    {"claims", "front", "costs"},
    {"verdict"},
    {"decision_lists"},
    {"decision_text"},
    {"decision"},
    {"poc"},
    {"sources", "values"},
    {"options"},
    {"commands", "mistakes"},
    {"cli"},
    {"__main__"},
]
ROW = {name: number for number, row in enumerate(ROWS) for name in row}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imports_of(source):
    """The modules and folders of robusttune that a source imports, at the top or anywhere inside."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            # `from robusttune import lookup` imports a module, `from robusttune.threat import LossOf` a name of one.
            dotted = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        parts = [name.split(".") for name in dotted]
        found |= {part[1] if len(part) > 1 else "__init__" for part in parts if part[0] == "robusttune"}
    return found


def place_of(path):
    """The module, or the folder of a plug-in."""
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def too_high(place, imported):
    """What is imported although it does not stand in a row before the importer's own."""
    return {name for name in imported if ROW.get(name, len(ROWS)) >= ROW[place]}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_rows_below_its_own(path):
    place = place_of(path)
    assert place in ROW, f"{place} has no row: put it in ROWS"
    assert not too_high(place, imports_of(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("place", "line", "wrong"),
    [
        ("tasks", "from robusttune.views import View", set()),
        ("tasks", "from robusttune.tasks.rotation import rotation", {"tasks"}),
        ("threat", "def later():\n    import robusttune.loss as loss", {"loss"}),
        ("threat", "from robusttune import lookup, harden", {"harden"}),
        ("norms", "from robusttune import ThreatModel", {"ThreatModel"}),
        ("cli", "import robusttune", {"__init__"}),
        ("loss", "import torchattacks", set()),
    ],
)
def test_the_layer_test_sees_imports_from_above(place, line, wrong):
    assert too_high(place, imports_of(line)) == wrong


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
    [path for path in FILES if path.name not in ("cli.py", "commands.py", "__main__.py")],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_the_library_does_not_print(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
