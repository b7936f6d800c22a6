"""A trial in a tracker of experiments: its settings, the numbers of each arm and seed, and the page to decide by."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from robusttune.measuring.tracked import metrics_of
from robusttune.run.log import Tracker
from robusttune.run.tracking import tracking
from robusttune.trial.plan import PLAN
from robusttune.trial.results import Trial


@contextmanager
def trial_tracked(
    log: str | Tracker | None, folder: Path | None, settings: Mapping[str, object]
) -> Iterator[Callable[[Path], Path]]:
    """Yield a function that writes a trial to a run in a tracker; the run begins and ends with this context.

    The function gets the path of the page or of the plan, and returns it. Metrics are named by arm, with the seed as the step.

    Args:
        log: see `check_log`.
        folder: the folder of the trial.
        settings: arguments of `poc`.
    """
    with tracking(log, folder) as run:
        run.begin("poc", settings)

        def written(path: Path) -> Path:
            if run.run is not None:
                for result in sorted(Trial.load(path.parent).results, key=lambda each: each.seed):
                    numbers = metrics_of(result.records)
                    run.log({f"{result.arm}/{name}": value for name, value in numbers.items()}, result.seed)
                for file in dict.fromkeys([path.with_name(PLAN), path, path.with_suffix(".html")]):
                    run.attach(file.name, file)
            return path

        yield written
