"""Limits on the size of files and functions, on nesting and on `Any`; no call of `locals()`.

How it is counted. A file: all of its lines. A function: its lines from the first statement after the docstring to the end,
with comments and inner functions, without blank lines. Nesting: how many compound statements (if, for, while, with, try,
match) stand inside each other in one function; `elif` is on the level of its `if`, and an inner function starts again at 0.
`Any`: each time that it stands in the annotation of an argument, a result or a variable.
"""

import ast
from pathlib import Path

import pytest

import robusttune

PACKAGE = Path(robusttune.__file__).parent
SOURCES = {str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
MOST_LINES, MOST_CODE, DEEPEST, MOST_ANY = 300, 50, 3, 150
COMPOUND = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)

# What is over a limit, and why. An entry that is no longer needed fails.
LONG_FILES = {}
LONG_FUNCTIONS = {}
DEEP_FUNCTIONS = {}


def functions_of(source):
    """(name, function) of every function and method in a source."""
    return [(node.name, node) for node in ast.walk(ast.parse(source)) if isinstance(node, FUNCTION)]


def code_of(function, source):
    """The number of lines of code of a function."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    lines = source.splitlines()[body[0].lineno - 1 : function.end_lineno] if body else []
    return sum(bool(line.strip()) for line in lines)


def depth_of(node):
    """How deep compound statements stand inside each other below a node."""
    inside = [each for each in ast.iter_child_nodes(node) if not isinstance(each, (*FUNCTION, ast.ClassDef))]
    return max((isinstance(each, COMPOUND) - _is_elif(node, each) + depth_of(each) for each in inside), default=0)


def _is_elif(node, inside):
    return isinstance(node, ast.If) and node.orelse == [inside] and inside.col_offset == node.col_offset


def over(limit, sizes):
    """The names whose sizes are over a limit."""
    return {name for name, size in sizes if size > limit}


def test_files_are_short():
    sizes = [(name, len(source.splitlines())) for name, source in SOURCES.items()]
    assert over(MOST_LINES, sizes) == set(LONG_FILES)


def test_functions_are_short():
    sizes = [
        (f"{path} {name}", code_of(function, source))
        for path, source in SOURCES.items()
        for name, function in functions_of(source)
    ]
    assert over(MOST_CODE, sizes) == set(LONG_FUNCTIONS)


def test_nesting_is_shallow():
    depths = [
        (f"{path} {name}", depth_of(function))
        for path, source in SOURCES.items()
        for name, function in functions_of(source)
    ]
    assert over(DEEPEST, depths) == set(DEEP_FUNCTIONS)


def annotations_of(source):
    """The annotations of arguments, results and variables in a source."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.arg, ast.AnnAssign)) and node.annotation is not None:
            yield node.annotation
        elif isinstance(node, FUNCTION) and node.returns is not None:
            yield node.returns


def anys_of(source):
    """How often `Any` stands in annotations of a source."""
    nodes = [node for annotation in annotations_of(source) for node in ast.walk(annotation)]
    names = [getattr(node, "id", None) or getattr(node, "attr", None) for node in nodes]
    return names.count("Any")


def test_types_are_seldom_any():
    counts = {path: anys_of(source) for path, source in SOURCES.items()}
    most = sorted(counts, key=counts.__getitem__, reverse=True)[:5]
    assert sum(counts.values()) <= MOST_ANY, f"most are in {', '.join(most)}"


def hides_arguments(source):
    """Tell if a source calls `locals()`, or `vars()` without argument, behind which arguments cannot be followed."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return any(
        isinstance(call.func, ast.Name) and call.func.id in ("locals", "vars") and not call.args for call in calls
    )


def test_arguments_can_be_followed():
    assert {path for path, source in SOURCES.items() if hides_arguments(source)} == set()


@pytest.mark.parametrize(
    ("body", "code", "depth"),
    [
        ("'''Text.'''", 0, 0),
        ("'''Text.'''\n\n    # why\n    return 1", 1, 0),
        ("first = 1\n\n    # why\n    return first", 3, 0),
        ("for each in []:\n        if each:\n            pass", 3, 2),
        ("if 1:\n        pass\n    elif 2:\n        pass\n    elif 3:\n        pass", 6, 1),
        ("if 1:\n        pass\n    else:\n        if 2:\n            pass", 5, 2),
        ("try:\n        pass\n    except OSError:\n        with open(''):\n            pass", 5, 2),
        ("if 1:\n        def inner():\n            if 2:\n                pass", 4, 1),
    ],
)
def test_sizes_are_counted_as_stated(body, code, depth):
    source = f"def function(\n    argument,\n):\n    {body}\n"
    function = dict(functions_of(source))["function"]
    assert (code_of(function, source), depth_of(function)) == (code, depth)


def test_any_is_counted_in_every_annotation():
    source = """
import typing
from typing import Any
def function(first: dict[str, Any], *more: Any, **others: Any) -> Any: ...
variable: list[typing.Any] = []
"""
    assert anys_of(source) == 5


@pytest.mark.parametrize(("call", "hides"), [("dict(locals())", True), ("vars()", True), ("vars(namespace)", False)])
def test_calls_that_hide_arguments_are_seen(call, hides):
    assert hides_arguments(f"def function(argument):\n    return {call}") == hides
