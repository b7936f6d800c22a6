"""Markdown tables, whose columns are aligned in a terminal, too."""

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeVar, cast

Value = TypeVar("Value")

WIDEST = 120  # in characters: the last column of a wider table is not padded, as its lines would only wrap


def markdown_table(head: Sequence[object], rows: Iterable[Sequence[object]], *, right: Collection[int] = ()) -> str:
    """Format a Markdown table with padded cells; a bar in a cell is escaped, as it would end the cell.

    Args:
        head, rows: the cells.
        right: the columns, counted from 0, whose cells end at the right, instead of beginning at the left.

    Example:
        >>> print(markdown_table(["eps", "accuracy"], [[0.5, "91%"], ["a|b", "90%"]]))
        | eps  | accuracy |
        |------|----------|
        | 0.5  | 91%      |
        | a\\|b | 90%      |
    """
    lines = [[_cell(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    if widths and sum(widths) + 3 * len(widths) > WIDEST:
        widths[-1] = _width(lines[0][-1])
    first, *others = (_line(cells, widths, right) for cells in lines)
    return "\n".join([first, "|" + "".join("-" * (width + 2) + "|" for width in widths), *others])


def as_text(text: str) -> str:
    """Escape text from elsewhere, such as a name, so that Markdown shows it literally: no link, picture, heading or HTML.

    Example:
        >>> print(as_text("[x](javascript:run)"), as_text("<lambda>"), as_text("resnet_18, 8/255"))
        \\[x\\](javascript:run) &lt;lambda> resnet_18, 8/255
    """
    one_line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    escaped = re.sub(r"&(?=#?\w+;)", "&amp;", one_line)
    escaped = re.sub(r"([\\`*\[\]!]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", escaped).replace("<", "&lt;")
    # These have no escape that every reader of Markdown knows: addresses, of which some make links, and struck-out words.
    escaped = re.sub(r":(?=//)", "&#58;", escaped)
    escaped = re.sub(r"\b(www)\.", r"\1&#46;", escaped, flags=re.IGNORECASE)
    escaped = escaped.replace("~", "&#126;") if escaped.count("~") > 1 else escaped
    return re.sub(r"^(?:([#>+-])|(\d+)([.)])(?=\s|$))", r"\2\\\1\3", escaped)


def texts_in(values: Value) -> Value:
    """Return values of JSON with each text in them, keys too, as `as_text` returns it."""
    made: object = values
    if isinstance(values, str):
        made = as_text(values)
    elif isinstance(values, Mapping):
        made = {texts_in(key): texts_in(value) for key, value in values.items()}
    elif isinstance(values, list | tuple):
        made = [texts_in(value) for value in values]
    return cast("Value", made)


def _cell(value: object) -> str:
    text = "".join(each if each.isprintable() else " " for each in str(value))
    return text.replace("\\|", "|").replace("|", "\\|")


def _line(cells: Sequence[str], widths: Sequence[int], right: Collection[int]) -> str:
    padded = []
    for column, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        spaces = " " * (width - _width(cell))
        padded.append(spaces + cell if column in right else cell + spaces)
    return f"| {' | '.join(padded)} |"


def _width(text: str) -> int:
    """Return the width of a text in a terminal: some characters, such as Chinese ones, take two places, accents none."""
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )
