"""The log of a run: lines for the user, and the facts of each epoch in `log.jsonl` and a tracker."""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol

from tqdm.auto import tqdm

from robusttune.run.settings import shown_radius
from robusttune.run.writing import unwritable, write_text
from robusttune.types import from_json, to_json

FILE = "log.jsonl"

logger = logging.getLogger("robusttune")


# Rewrites lines that are shown: the command line sets it, and speaks of options where Python speaks of arguments.
wording: ContextVar[Callable[[str], str]] = ContextVar("wording", default=str)


def tell(message: str, progress: bool) -> None:
    """Log a line, or a block of lines; with `progress`, show it above the progress bar, too."""
    logger.info(message)
    if progress:
        tqdm.write(wording.get()(message), file=sys.stderr)


def warn(message: str, progress: bool) -> None:
    """Log one line as a warning; with `progress`, show it above the progress bar instead where no handler is set up."""
    if wording.get() is not str:  # the command line prints what is logged as a warning
        logger.warning(message)
        return
    if progress:
        tqdm.write(message, file=sys.stderr)
    if not progress or logger.hasHandlers():  # without a handler, Python itself writes warnings to stderr
        logger.warning(message)


@contextmanager
def quiet() -> Iterator[None]:
    """Log nothing but errors inside this context."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def block(rows: Iterable[tuple[str, str]]) -> str:
    """Write names and values line by line, aligned; rows without a value are left out.

    Example:
        >>> print(block([("data", "images"), ("threat", "l2, eps 0.5"), ("heads", "")]))
        data    images
        threat  l2, eps 0.5
    """
    shown = [(name, value) for name, value in rows if value]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in shown)


class Metrics(Protocol):
    """The part of a tracker of experiments that takes metrics."""

    def log(self, values: dict[str, Any], step: int) -> object: ...


class Tracker(Metrics, Protocol):
    """A tracker of experiments, such as those of accelerate."""

    def finish(self) -> object: ...


class Journal:
    """A writer of each epoch's facts to the log, to `log.jsonl` in the run's folder, and to a tracker.

    Args:
        folder: the folder of the run; None for no file.
        tracker: gets the facts, too; None for none.
    """

    def __init__(self, folder: Path | None = None, tracker: Metrics | None = None) -> None:
        self.path = None if folder is None else folder / FILE
        self.tracker = tracker

    def write(self, facts: Mapping[str, float]) -> None:
        """Write the facts of one epoch; "step" must be among them."""
        logger.info(
            "%s",
            ", ".join(
                f"{key} {shown_radius(value) if key == 'eps' else _short(value)}" for key, value in facts.items()
            ),
        )
        if self.path is not None:
            try:
                with open(self.path, "a", encoding="utf-8") as file:
                    file.write(to_json(facts) + "\n")
            except OSError as error:
                raise unwritable(self.path, error) from error
        if self.tracker is not None:
            self.tracker.log(dict(facts), step=int(facts["step"]))

    def rewind(self, epochs: int) -> None:
        """Keep the first epochs of `log.jsonl`; later ones, which a resumed run repeats, and damaged lines are removed."""
        if self.path is None or not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        write_text(self.path, "".join(line + "\n" for line in lines if _epoch(line) <= epochs))


def _epoch(line: str) -> float:
    try:
        return float(from_json(line)["epoch"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return float("inf")


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
