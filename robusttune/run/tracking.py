"""Trackers of experiments: what a run writes to MLflow, W&B, TensorBoard or another one, whose failure never stops the run."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Protocol

from robusttune.plugins import did_you_mean
from robusttune.run import distributed
from robusttune.run.folder import as_json
from robusttune.run.log import Tracker
from robusttune.types import Json, plain_number, shown

# The files of those that take settings and a report, too; accelerate has more, by name.
OWN = {"mlflow": "tracking_mlflow", "wandb": "tracking_wandb", "tensorboard": "tracking_tensorboard"}
WRITES_FILES = ("tensorboard", "aim")

logger = logging.getLogger("robusttune")


class TrackedRun(Protocol):
    """A run in a tracker, as the files of MLflow, W&B and TensorBoard make it."""

    def settings(self, function: str, values: Mapping[str, Json]) -> None: ...
    def log(self, values: Mapping[str, float], step: int | None) -> None: ...
    def attach(self, name: str, path: Path) -> None: ...
    def finish(self, failed: bool) -> None: ...


def check_log(log: object, out: object) -> None:
    """Check a tracker before anything is spent.

    Args:
        log: the user's: a name, a tracker, or None.
        out: the run's folder; None for none.

    Raises:
        ValueError: the name is unknown, the object is no tracker, there is no folder for a tracker that writes files, or MLflow's
            server does not answer.
        ImportError: the tracker's package is not installed.
    """
    if log is None:
        return
    if not isinstance(log, str):
        if isinstance(log, type) or not all(callable(getattr(log, name, None)) for name in ("log", "finish")):
            raise ValueError(
                f"log is {shown(log)}, but the name of a tracker is needed, such as 'mlflow', 'wandb' or 'tensorboard', or an object with "
                "log(values, step) and finish()"
            )
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    known = sorted({*OWN, *LOGGER_TYPE_TO_CLASS})
    if log not in known:
        raise ValueError(f"unknown log {log!r}{did_you_mean(log, known)}: known are {', '.join(known)}")
    if log in WRITES_FILES and out is None:
        raise ValueError(f"log={log!r} writes files: pass out=, a folder for them")
    try:
        import_module(log)
        if log in OWN:
            import_module(f"robusttune.run.{OWN[log]}").check()
    except ImportError as error:
        raise ImportError(f"log={log!r} needs its package: pip install {log}") from error


def _item(value: object) -> object:
    """Return the number in a tensor of one."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


class Tracking:
    """A run in a tracker; where the tracker fails after its beginning, this is a warning, and the work goes on.

    Args:
        log: see `check_log`.
        folder: the folder of the run; None for none.
    """

    def __init__(self, log: str | Tracker | None, folder: Path | None) -> None:
        self.chosen, self.folder = log, folder
        self.run: TrackedRun | None = None

    def begin(self, function: str, values: Mapping[str, object]) -> "Tracking":
        """Begin the run with its settings.

        Args:
            function: the function that the user called.
            values: the values of its arguments; objects are written as text.

        Raises:
            ValueError: the tracker cannot begin a run.
        """
        if self.chosen is not None and distributed.rank() == 0:
            try:
                self.run = _begun(self.chosen, self.folder)
            except Exception as error:
                raise ValueError(
                    f"log={self.chosen!r} cannot begin a run ({type(error).__name__}: {error}): look at its settings, or leave log= out"
                ) from error
            self.settings(function, values)
        return self

    def settings(self, function: str, values: Mapping[str, object]) -> None:
        """Write settings, or what is known of them later."""
        plain = as_json(values)
        self._guarded("settings", lambda run: run.settings(function, plain))

    def log(self, values: Mapping[str, object], step: int | None = None) -> None:
        """Write metrics; other values than numbers are left out."""
        numbers = {name: plain_number(_item(value)) for name, value in values.items()}
        known = {name: float(value) for name, value in numbers.items() if isinstance(value, int | float)}
        self._guarded("metrics", lambda run: run.log(known, step))

    def attach(self, name: str, path: Path) -> None:
        """Add a file, or all files of a folder, as an artifact; nothing where there is none."""
        if path.exists():
            self._guarded(f"the artifact {name}", lambda run: run.attach(name, path))

    def finish(self, failed: bool = False) -> None:
        """End the run, unless the user has begun it."""
        self._guarded("the end", lambda run: run.finish(failed))
        self.run = None

    def _guarded(self, what: str, write: Callable[[TrackedRun], None]) -> None:
        if self.run is None:
            return
        try:
            write(self.run)
        except Exception as error:
            logger.warning(
                "log=%r does not take %s (%s: %s): the work goes on without it",
                self.chosen,
                what,
                type(error).__name__,
                error,
            )


@contextmanager
def tracking(log: str | Tracker | None, folder: Path | None) -> Iterator[Tracking]:
    """Yield a run in a tracker that ends with this context: as failed, where anything is raised."""
    tracked = Tracking(log, folder)
    try:
        yield tracked
    except BaseException:
        tracked.finish(failed=True)
        raise
    tracked.finish()


def flat(values: Mapping[str, Json], prefix: str = "") -> dict[str, str]:
    """Write settings as texts, those inside others under joined names; what is None or empty is left out.

    Example:
        >>> flat({"eps": 0.5, "tasks": {"rotation": 0.5}, "out": None}, "harden.")
        {'harden.eps': '0.5', 'harden.tasks.rotation': '0.5'}
    """
    texts: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            texts |= flat(value, f"{prefix}{name}.")
        elif value is not None and value != []:
            texts[f"{prefix}{name}"] = str(value)
    return texts


def _begun(log: str | Tracker, folder: Path | None) -> TrackedRun:
    if not isinstance(log, str):
        return _Given(log)
    if log in OWN:
        run: TrackedRun = import_module(f"robusttune.run.{OWN[log]}").begin(folder)
        return run
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    kind = LOGGER_TYPE_TO_CLASS[log]
    PartialState()
    tracker: Tracker = kind("robusttune", **({"logging_dir": str(folder)} if log in WRITES_FILES else {}))
    start: Callable[[], object] | None = getattr(tracker, "start", None)
    if start is not None:
        start()
    return _Given(tracker)


class _Given:
    """A tracker of the user's, or of accelerate: settings and files reach it where it has methods for them."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    def settings(self, function: str, values: Mapping[str, Json]) -> None:
        """Write settings by `store_init_configuration`, as accelerate's trackers have it."""
        store: Callable[[object], object] | None = getattr(self.tracker, "store_init_configuration", None)
        if store is not None:
            store(flat(values, f"{function}."))

    def log(self, values: Mapping[str, float], step: int | None) -> None:
        """Write metrics."""
        self.tracker.log(dict(values), step=0 if step is None else step)

    def attach(self, name: str, path: Path) -> None:
        """Add files by `log_artifact`, where the tracker has it."""
        add: Callable[[str], object] | None = getattr(self.tracker, "log_artifact", None)
        if add is not None:
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    add(str(file))

    def finish(self, failed: bool) -> None:
        """End the run."""
        self.tracker.finish()
