"""The page of troubleshooting quotes messages that are in the code, word by word."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import robusttune

PACKAGE = Path(robusttune.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
ANYTHING = "…"
QUOTED = re.findall(r"^\| `(.+?)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def text_of(node):
    """The words of a text in the code, with … for what is filled in; None for other code."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%[\d.]*[sdrf]", ANYTHING, node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) if isinstance(part, ast.Constant) else ANYTHING for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return (text_of(node.left) or ANYTHING) + (text_of(node.right) or ANYTHING)
    return None


@cache
def texts():
    """All texts in the code of the package but docstrings."""
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        holders = (ast.Module, ast.ClassDef, ast.FunctionDef)
        documented = [
            node.body[0].value for node in ast.walk(tree) if isinstance(node, holders) and ast.get_docstring(node)
        ]
        found |= {text for node in ast.walk(tree) if node not in documented and (text := text_of(node))}
    return found


def is_in(message, text):
    return re.search(".*".join(map(re.escape, message.split(ANYTHING))), text, re.DOTALL) is not None


@pytest.mark.parametrize("message", QUOTED, ids=lambda message: message[:60])
def test_each_message_is_in_the_code(message):
    words = re.sub(rf"{ANYTHING}|\W", "", message)
    assert len(words) >= 12, "too short to be searched for"
    assert any(is_in(message, text) for text in texts()), message


def test_many_messages_are_explained_each_once():
    assert len(QUOTED) == len(set(QUOTED)) > 70


def test_a_message_that_is_not_there_is_told():
    assert not any(is_in("images span […, …], but eps is in metres", text) for text in texts())
