"""Parameters of functions and fields of classes, read from their source, so that `--help` need not import torch.

A place is FILE:NAME, with the file's path inside this package, such as "training/harden.py:harden".
"""

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[1]
# Docstrings refer to each other as "see `Recipe`", in this order.
REFERENCES = {
    "harden": "training/harden.py:harden",
    "RobustLoss": "training/robust_loss.py:RobustLoss",
    "Recipe": "training/recipe.py:Recipe",
}
SAME = {"dict": "Mapping", "list": "Sequence", "tuple": "Sequence", "Path": "str", "PathLike": "str"}


class Parameter(NamedTuple):
    """A parameter of a function, or a field of a class.

    Attributes:
        name: as in the source.
        types: names of the types in its annotation, with aliases resolved; each text of a Literal stands in quotes.
        about: its entry in the docstring.
        required: True if it has no default.
        default: its default; ... if it has none, or one that is not a literal.
        keyword: True if it is passed by its name only.
    """

    name: str
    types: frozenset[str]
    about: str
    required: bool
    default: object
    keyword: bool


@cache
def parameters_of(place: str) -> dict[str, Parameter]:
    """Read the parameters of a function, or the fields of a class.

    Example:
        >>> sorted(parameters_of("training/harden.py:harden")["eps"].types)
        ['None', 'float']
    """
    file, definition, about = place.partition(":")[0], _definition(place), descriptions(place)
    rows: list[tuple[str, ast.expr | None, ast.expr | None, bool]]
    if isinstance(definition, ast.ClassDef):
        fields = [node for node in definition.body if isinstance(node, ast.AnnAssign)]
        rows = [(ast.unparse(node.target), node.annotation, node.value, True) for node in fields]
    else:
        signature = definition.args
        defaults = [*[None] * (len(signature.args) - len(signature.defaults)), *signature.defaults]
        positional = zip(signature.args, defaults, strict=True)
        rows = [(argument.arg, argument.annotation, value, False) for argument, value in positional]
        by_name = zip(signature.kwonlyargs, signature.kw_defaults, strict=True)
        rows += [(argument.arg, argument.annotation, value, True) for argument, value in by_name]
    return {
        name: Parameter(name, _types(file, note), about.get(name, ""), value is None, _literal(file, value), keyword)
        for name, note, value, keyword in rows
    }


def summary(place: str) -> str:
    """Read the docstring of a function without its list of arguments."""
    text = ast.get_docstring(_definition(place)) or ""
    return re.sub(r"\nArgs:\n(    .*\n?|\n)*", "\n", text).strip()


def descriptions(place: str) -> dict[str, str]:
    """Read the docstring's entry of each argument; an entry such as "see `Recipe`" is looked up there.

    Example:
        >>> descriptions("training/harden.py:harden")["lr"]
        'peak learning rate of a named optimiser; by default the usual one of "sgd", "momentum" or "adamw".'
    """
    entries = _entries(place)
    for other, where in REFERENCES.items():
        for name, text in entries.items():
            if re.match(rf"(see|as for) `{other}`", text):
                entries[name] = _entries(where).get(name, text)
    return entries


def _entries(place: str) -> dict[str, str]:
    """Read the entries under "Args:" or "Attributes:"; names that share an entry get it each."""
    text = ast.get_docstring(_definition(place)) or ""
    section = re.search(r"^(?:Args|Attributes):\n((?:    .*\n?|\n)*)", text, re.MULTILINE)
    entries = re.findall(r"^    (\w[\w, \n]*?): (.*(?:\n        .*)*)", section[1] if section else "", re.MULTILINE)
    return {name: " ".join(about.split()) for names, about in entries for name in re.findall(r"\w+", names)}


@cache
def _tree(file: str) -> ast.Module:
    return ast.parse((PACKAGE / file).read_text(encoding="utf-8"))


def _definition(place: str) -> ast.FunctionDef | ast.ClassDef:
    file, _, name = place.partition(":")
    nodes = [node for node in _tree(file).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return next(node for node in nodes if node.name == name)


def _types(file: str, annotation: ast.expr | None) -> frozenset[str]:
    """List the types in an annotation, without those inside brackets."""
    match annotation:
        case ast.BinOp(left=left, right=right):
            return _types(file, left) | _types(file, right)
        case ast.Constant(value=str(text)):
            return _types(file, ast.parse(text, mode="eval").body)
        case ast.Constant(value=None):
            return frozenset({"None"})
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            return frozenset(map(ast.unparse, choices.elts if isinstance(choices, ast.Tuple) else [choices]))
        case ast.Subscript(value=ast.Name(id="Union" | "Optional" as generic), slice=members):
            types = members.elts if isinstance(members, ast.Tuple) else [members]
            return frozenset({"None"} if generic == "Optional" else ()).union(*(_types(file, name) for name in types))
        case ast.Subscript(value=generic):
            return _types(file, generic)
        case ast.Name(id=name) if (meaning := _assigned(file, name)) is not None:
            return _types(*meaning)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return frozenset({SAME.get(name, name)})
    return frozenset({"Any"})


def _assigned(file: str, name: str) -> tuple[str, ast.expr] | None:
    """Find the value of a name of this package, such as an alias or a constant, and its file; None if there is none."""
    for node in _tree(file).body:
        match node:
            case ast.ImportFrom(module=str(module), names=names) if name in {alias.name for alias in names}:
                library, *parts = module.split(".")
                if library != PACKAGE.name:
                    return None
                path = PACKAGE.joinpath(*parts)
                path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
                return _assigned(str(path.relative_to(PACKAGE)), name) if path.exists() else None
            case (
                ast.Assign(targets=[ast.Name(id=target)], value=value)
                | ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value)
            ) if target == name:
                return file, value
    return None


def _literal(file: str, value: ast.expr | None) -> object:
    """Evaluate a default, or the constant that it names; ... if it is no literal."""
    if isinstance(value, ast.Name):
        file, value = _assigned(file, value.id) or (file, None)
    try:
        return ... if value is None else ast.literal_eval(value)
    except ValueError:
        return ...
