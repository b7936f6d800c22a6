"""Markdown tables without the spaces that align them."""

import re


def unpadded(text):
    """The text, with one space on either side of each cell and three dashes below its head.

    Example:
        >>> unpadded("| clean  | 9     |")
        '| clean | 9 |'
    """
    return re.sub(r"-{3,}\|", "---|", re.sub(r"\| +", "| ", re.sub(r" +\|", " |", text)))
