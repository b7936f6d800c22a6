"""The command line: the commands, their options, which are read from the library's signatures, and its errors."""

from robusttune.cli.program import main

__all__ = ["main"]
