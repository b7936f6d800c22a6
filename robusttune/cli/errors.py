"""Errors of the command line: arguments that do not fit, and errors of the library, in the words of the options."""

import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from robusttune.run.log import wording

# The option that stands for an argument of another name.
STANDING = {
    "test_loader": "test_split",
    "val_loader": "val_split",
    "unlabeled_loader": "unlabeled",
    "init_from": "checkpoint",
    "out": "out",  # of evaluate, in the errors of report and compare
}
WORDS = {"True": "true", "False": "false", "None": "null"}
# Phrases for Python, and what the shell says instead.
PHRASES = {
    "mean and std come together": "--mean and --std come together",
    ", or objects": "",
    "such as (0.5, 0.5, 0.5)": "such as 0.5 0.5 0.5",
    "loader.dataset.classes": "the folders of --data",
    "robusttune.poc(…, plan_only=True) writes one": "robusttune poc --plan_only writes one",
    " of a plain DataLoader with at least": " of a data set with at least",
    "pass functools.partial(ood, others=their_loader)": "call robusttune.evaluate with ood in Python, which takes them",
    "pass the folder that was out= of harden": "pass the folder that harden wrote to its --out",
    "a dict of weights is needed, such as": "weights are needed, such as",
    "pass val_loader= with labelled images that are not trained on": "put labelled images that are not trained on into a folder "
    "validation beside train, or name their split with --val_split",
}
OBJECTS = re.compile(r"; or pass an? (?:object|callable or Kornia module)\b")
NUMBERS_BY_NAME = re.compile(r"(?<=with --)(tasks) (\{(?:'\w+': [\d.e-]+(?:, )?)+\})")  # which a shell would take apart


class UsageError(Exception):
    """Arguments that do not fit the command; the exit code is 2."""


def in_options(message: str, options: Iterable[str]) -> str:
    """Rewrite a message of the library with options instead of its arguments.

    Example:
        >>> in_options("out='a' is not empty: pass resume=True to go on", {"out", "resume"})
        "--out 'a' is not empty: pass --resume true to go on"
        >>> in_options("steps is 0, but at least 1 is needed, or None for the default", {"steps"})
        '--steps is 0, but at least 1 is needed, or null for the default'
    """
    message = OBJECTS.sub("", message)
    for phrase, instead in PHRASES.items():
        message = message.replace(phrase, instead)
    names = "|".join(sorted({*options, *STANDING}))
    message = _outside_quotes(
        rf"(?<![\w.(])(?P<name>{names})=(?!\()(?P<value>(?:True|False|None)\b|)", _as_option, message
    )
    message = _outside_quotes(rf"(?:^|(?<=[:;] ))(?P<name>{names})(?= (?:is|holds|needs) | are \[|: )", _flag, message)
    of_python = "|".join(name for name, option in STANDING.items() if name != option)
    message = _outside_quotes(rf"(?<![\w.-])(?P<name>{of_python})\b", _flag, message)
    message = _outside_quotes(r"(?<![\w.])(?:True|False|None)\b", lambda match: WORDS[match[0]], message)
    return NUMBERS_BY_NAME.sub(lambda match: f"""{match[1]} '{match[2].replace("'", "")}'""", message)


def _outside_quotes(pattern: str, instead: Callable[[re.Match[str]], str], message: str) -> str:
    """Replace what matches outside of quotes; what stands in them is the user's."""
    quoted = r"""(?P<quoted>(?<!\w)'[^']*'|"[^"]*")"""
    return re.sub(f"{quoted}|{pattern}", lambda match: match[0] if match["quoted"] else instead(match), message)


def _as_option(match: re.Match[str]) -> str:
    value, rest = WORDS.get(match["value"], ""), match.string[match.end() :]
    return f"{_flag(match)} {value}" if value or re.match(r"[\w'\"{\[…-]", rest) else _flag(match)


def _flag(match: re.Match[str]) -> str:
    return f"--{STANDING.get(match['name'], match['name'])}"


class _Shown(logging.Handler):
    """A handler that prints warnings of the library with options instead of arguments."""

    def __init__(self, options: Iterable[str]) -> None:
        super().__init__(logging.WARNING)
        self.options = options

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line to stderr."""
        line = in_options(record.getMessage(), self.options)
        print(f"robusttune: {record.levelname.lower()}:", *line.split(), file=sys.stderr)


@contextmanager
def worded(options: Iterable[str]) -> Iterator[None]:
    """Print the lines and the warnings of the library with options instead of arguments, inside this context."""
    logger, shown = logging.getLogger("robusttune"), _Shown(options)
    token = wording.set(lambda message: in_options(message, options))
    logger.addHandler(shown)
    try:
        yield
    finally:
        logger.removeHandler(shown)
        wording.reset(token)


def note(message: str) -> None:
    """Print one line to stderr about what was read, and how."""
    print("robusttune: note:", *message.split(), file=sys.stderr)


def warning(message: str) -> None:
    """Print one line to stderr about what may make a result wrong."""
    print("robusttune: warning:", *message.split(), file=sys.stderr)
