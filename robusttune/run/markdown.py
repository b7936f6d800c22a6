"""Markdown tables."""

from collections.abc import Iterable, Sequence


def markdown_table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Format a Markdown table; a bar in a cell is escaped, as it would end the cell.

    Example:
        >>> print(markdown_table(["eps", "accuracy"], [[0.5, "91%"], ["a|b", "90%"]]))
        | eps | accuracy |
        |---|---|
        | 0.5 | 91% |
        | a\\|b | 90% |
    """
    return "\n".join([_line(head), "|---" * len(head) + "|", *map(_line, rows)])


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell).replace("\\|", "|").replace("|", "\\|") for cell in cells) + " |"
