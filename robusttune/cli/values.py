"""Values of options, as they are written on a command line or in a file of options."""

from pathlib import Path

import yaml

from robusttune.cli.errors import UsageError
from robusttune.cli.signatures import Parameter
from robusttune.run.decimal_yaml import DecimalLoader
from robusttune.run.settings import numbers

WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "Mapping": "a mapping {name: value}",
    "Sequence": "a list [a, b]",
}
NULLS = ("null", "~", "None")
KINDS = {bool: "bool", int: "int", float: "float", str: "str", dict: "Mapping", list: "Sequence", type(None): "None"}


def words_of(types: frozenset[str]) -> str:
    """Name the types of an option in words; empty if it takes almost anything.

    Example:
        >>> words_of(frozenset({"float", "None"})), words_of(frozenset({"'auto'", "bool"}))
        ('a number', "true or false or 'auto'")
    """
    if {"str", "Mapping"} <= types:
        return ""
    types -= {"int"} if "float" in types else set()
    literals = sorted(name for name in types if name.startswith(("'", '"')))
    return " or ".join([*(words for name, words in WORDS.items() if name in types), *literals])


def read(parameter: Parameter, written: str | list[str]) -> object:
    """Read the value of an option from its text, or from several words, which are a list.

    Raises:
        UsageError: it is of another type than the option takes.

    Example:
        >>> eps = Parameter("eps", frozenset({"float", "None"}), "", False, None, True)
        >>> read(eps, "8/255") == 8 / 255, read(eps, "null")
        (True, None)
    """
    if isinstance(written, list) and len(written) > 1:
        return [_typed(parameter.name, text, parameter.types | {"Mapping", "Any"}) for text in written]
    return _typed(parameter.name, written if isinstance(written, str) else written[0], parameter.types)


def _typed(name: str, text: str, types: frozenset[str]) -> object:
    """Read a text as one of these types; a type that is not in WORDS, such as Any, takes all that YAML has."""
    value = text if repr(text) in types else None if _says_none(text, types) else _plain(text)
    kind, others = KINDS[type(value)], types - {"None", *WORDS}
    if kind in types:
        return value
    if "float" in types and isinstance(value, int) and kind == "int":
        return float(value)
    if "str" in types and (kind not in ("Mapping", "Sequence") or not others):
        return text
    if others:
        return value
    raise UsageError(f"--{name} is {text!r}, but it must be {words_of(types)}")


def _says_none(text: str, types: frozenset[str]) -> bool:
    """Return True for "none" if it means None for an option of these types, and cannot be a name that the option takes."""
    names = {"Any", "'none'"} if "float" in types else {"str", "Any", "'none'"}
    return text.lower() == "none" and "None" in types and not types & names


def _plain(text: str) -> object:
    """Read YAML in which 8/255 is a number; a scalar of another kind, such as a date, is the text itself."""
    if text in NULLS:
        return None
    try:
        value = numbers(yaml.load(text, DecimalLoader))
    except (yaml.YAMLError, ValueError):
        return text
    return value if isinstance(value, bool | int | float | dict | list) else text


def texts_of(file: str) -> dict[str, str]:
    """Read a YAML file of options, each value as the text that a command line would have.

    Raises:
        UsageError: it cannot be read, or is not lines of "name: value".
    """
    try:
        root = yaml.compose(Path(file).read_text(encoding="utf-8"), yaml.SafeLoader)
    except OSError as error:
        raise UsageError(f"--config {file!r} cannot be read ({error.strerror}): pass a YAML file of options") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--config {file!r} is not UTF-8 text: save it as UTF-8 ({error})") from error
    except yaml.YAMLError as error:
        raise UsageError(_not_options(file, str(error))) from error
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(_not_options(file, "it is empty" if root is None else yaml.serialize(root)))
    names = [str(key.value) for key, _ in root.value]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"--config {file!r} has {twice!r} twice: leave one of them out")
    return {
        str(key.value): value.value if isinstance(value, yaml.ScalarNode) else yaml.serialize(value)
        for key, value in root.value
    }


def _not_options(file: str, why: str) -> str:
    return (
        f"--config {file!r} is not a YAML file of options, 'name: value' line by line, as --print_config shows: "
        f"{' '.join(why.split())}"
    )
