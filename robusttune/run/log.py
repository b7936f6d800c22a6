"""What a run says of itself, epoch by epoch."""

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

FILE = "log.jsonl"

logger = logging.getLogger("robusttune")


def tell(message: str, progress: bool) -> None:
    """Log one line, and show it above the progress bar."""
    logger.info(message)
    if progress:
        tqdm.write(message, file=sys.stderr)


class Journal:
    """Writes what is known after each epoch to the log, to `log.jsonl` in the run's folder, and to a tracker.

    Args:
        folder: of the run; None for no file.
        tracker: an accelerate tracker, or anything with its `log(values, step)` and `finish()`; None for none.
    """

    def __init__(self, folder: Path | None = None, tracker: Any = None) -> None:
        self.path = None if folder is None else folder / FILE
        self.tracker = tracker

    def write(self, facts: Mapping[str, Any]) -> None:
        """Tell the facts of one epoch."""
        logger.info("%s", ", ".join(f"{key} {_short(value)}" for key, value in facts.items()))
        if self.path is not None:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(dict(facts)) + "\n")
        if self.tracker is not None:
            self.tracker.log(dict(facts), step=facts["step"])

    def rewind(self, epochs: int) -> None:
        """Forget the epochs that are taken again, all after the first so many; a line cut short by a kill goes too."""
        if self.path is None or not self.path.exists():
            return
        kept = [line for line in self.path.read_text(encoding="utf-8").splitlines() if _epoch(line) <= epochs]
        self.path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def close(self) -> None:
        """Let the tracker finish."""
        if self.tracker is not None:
            self.tracker.finish()


def chosen_tracker(log: Any, folder: Path | None) -> Any:
    """An accelerate tracker by name, such as "tensorboard" or "wandb"; an object with `log(values, step)` is taken too.

    Raises:
        ValueError: an unknown name, or a tracker that writes files without a folder.
        ImportError: the tracker's package is not installed.
    """
    if log is None or not isinstance(log, str):
        return log
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    if log not in LOGGER_TYPE_TO_CLASS:
        raise ValueError(f"unknown log {log!r}: known are {', '.join(sorted(LOGGER_TYPE_TO_CLASS))}")
    kind = LOGGER_TYPE_TO_CLASS[log]
    if kind.requires_logging_directory and folder is None:
        raise ValueError(f"log={log!r} writes files: pass out=, a folder for them")
    PartialState()
    where = {"logging_dir": str(folder)} if kind.requires_logging_directory else {}
    try:
        tracker = kind("robusttune", **where)
        if hasattr(tracker, "start"):
            tracker.start()
    except ImportError as error:
        raise ImportError(f"log={log!r} needs its package: pip install {log}") from error
    return tracker


def _epoch(line: str) -> float:
    try:
        return float(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
