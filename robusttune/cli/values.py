"""Values as they are written on a command line and in its files."""

from typing import Any


class Number(float):
    """A number, which may be written as a fraction.

    Example:
        >>> Number("8/255") == 8 / 255
        True
    """

    def __new__(cls, value: Any) -> "Number":
        """Of a number or of text."""
        upper, slash, lower = str(value).partition("/")
        return super().__new__(cls, float(upper) / float(lower) if slash and float(lower) else float(value))
