"""Errors of the command line: arguments that do not fit, and errors of the library, in the words of the options."""

import re
import sys
from collections.abc import Iterable

# The option that stands for an argument of another name.
STANDING = {
    "test_loader": "test_split",
    "val_loader": "val_split",
    "unlabeled_loader": "unlabeled",
    "init_from": "checkpoint",
    "out": "out",  # of evaluate, in the errors of report and compare
}
WORDS = {"True": "true", "False": "false", "None": "null"}


class UsageError(Exception):
    """Arguments that do not fit the command; the exit code is 2."""


def in_options(message: str, options: Iterable[str]) -> str:
    """Rewrite an error of the library with options in the place of its arguments.

    Example:
        >>> in_options("out='a' is not empty: pass resume=True to go on", {"out", "resume"})
        "--out 'a' is not empty: pass --resume true to go on"
    """

    def option(match: re.Match[str]) -> str:
        name, value = STANDING.get(match[1], match[1]), WORDS.get(match[2], match[2])
        return f"--{name} {value}" if value or re.match(r"[\w'\"{\[…-]", message[match.end() :]) else f"--{name}"

    names = "|".join(sorted({*options, *STANDING}))
    return re.sub(rf"(?<![\w.(])({names})=((?:True|False|None)\b|)", option, message)


def note(message: str) -> None:
    """Print one line to stderr about what was read, and how."""
    print("robusttune: note:", *message.split(), file=sys.stderr)


def warning(message: str) -> None:
    """Print one line to stderr about what may make a result wrong."""
    print("robusttune: warning:", *message.split(), file=sys.stderr)
