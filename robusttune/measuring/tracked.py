"""Records in a tracker of experiments: each number as a metric, the provenance as settings, and the report as an artifact."""

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from robusttune.measuring.agreement import FACT
from robusttune.measuring.gate import trained_radius, worst_case
from robusttune.measuring.record import Record
from robusttune.measuring.records import Records
from robusttune.measuring.records_files import FILE
from robusttune.measuring.report import report
from robusttune.measuring.requirements import ROBUST, Requirement
from robusttune.measuring.sections._figure import new_figure
from robusttune.measuring.subject import Subject
from robusttune.run.log import Tracker
from robusttune.run.tracking import Tracking, check_log, tracking

logger = logging.getLogger("robusttune")

# Settings that tell the numbers of one metric apart.
TELLING = ("task", "corruption", "severity", "over", "norm", "eps", "sigma")


def check_report_log(log: object, out: object) -> None:
    """Check a tracker that gets a report before anything is spent.

    Raises:
        ValueError: see `check_log`.
        ImportError: the tracker's package is not installed, or those of a report.
    """
    check_log(log, out)
    if log is not None:
        new_figure(1, 1)
        from robusttune.measuring.html import page

        page("", Path())


@contextmanager
def tracked(
    log: str | Tracker | None, subject: Subject, evaluations: Sequence[tuple[str, object]], subset: int | None
) -> Iterator["TrackedRecords"]:
    """Yield what writes Records to a run in a tracker, which begins and ends with this context.

    Args:
        log: see `check_log`.
        subject: to be measured.
        evaluations: with their titles.
        subset: the number of images; None for all.
    """
    settings = {
        "evaluations": {
            title: evaluation.keywords if isinstance(evaluation, partial) else "" for title, evaluation in evaluations
        },
        "threat": vars(subject.threat),
        "subset": subset,
        "seed": subject.seed,
        "out": subject.folder,
    }
    with tracking(log, subject.folder) as run:
        yield TrackedRecords(run.begin("evaluate", settings))


class TrackedRecords:
    """A run in a tracker that Records can be written to."""

    def __init__(self, run: Tracking) -> None:
        self.run = run

    def write(self, records: Records) -> None:
        """Write the numbers, the facts, and the report with the file of the Records."""
        if self.run.run is None:
            return
        self.run.log(metrics_of(records))
        self.run.settings("measured", {name: value for name, value in records.facts.items() if name != "classes"})
        with tempfile.TemporaryDirectory() as folder:
            try:
                report(records, folder)
            except Exception as error:  # what was measured must not be lost for its picture
                logger.warning("the tracker gets no report, as it could not be made: %s", error)
            records.save(Path(folder) / FILE)
            self.run.attach("report", Path(folder))


def metrics_of(records: Records) -> dict[str, float]:
    """Return the measured numbers, and the ends of their intervals, by names that stay the same from run to run.

    "robust/accuracy" is the accuracy under the worst attack at the training radius, where that is known.

    Example:
        >>> from robusttune.measuring.record import accuracy
        >>> metrics_of(Records([accuracy("clean", 90, 100)]))
        {'clean/accuracy': 0.9, 'clean/accuracy/low': 0.8256..., 'clean/accuracy/high': 0.9447...}
    """
    named = [(_name(record), record) for record in records]
    counts = Counter(name for name, _ in named)
    named = [(_by_attack(name, record) if counts[name] > 1 else name, record) for name, record in named]
    counts = Counter(name for name, _ in named)
    named = [(_by_all(name, record) if counts[name] > 1 else name, record) for name, record in named]
    known = trained_radius(records) is not None and records.facts.get(FACT) is None
    metrics: dict[str, float] = {}
    for name, record in [*named, *(_robust(records) if known else [])]:
        metrics[name] = record.value
        metrics[f"{name}/low"], metrics[f"{name}/high"] = record.interval
    return metrics


def _robust(records: Records) -> list[tuple[str, Record]]:
    try:
        return [("robust/accuracy", worst_case(records, Requirement(ROBUST, ROBUST, 1.0))[0])]
    except ValueError:  # nothing was measured at the training radius
        return []


def _name(record: Record) -> str:
    told = [record.setting[key] for key in TELLING if record.setting.get(key) is not None]
    parts = [f"{each:.4g}" if isinstance(each, float) else str(each) for each in told]
    return "/".join([record.evaluation, record.metric, *parts])


def _by_attack(name: str, record: Record) -> str:
    attack = record.setting.get("attack")
    return name if attack is None else f"{name}/{attack}"


def _by_all(name: str, record: Record) -> str:
    rest = [f"{key} {value}" for key, value in record.setting.items() if key not in (*TELLING, "attack", "ok")]
    return "/".join([name, *rest])
