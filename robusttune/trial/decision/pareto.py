"""Pareto front of arms over cost, clean and robust accuracy, and its plots."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from robusttune.measuring.sections._figure import with_plain_words
from robusttune.trial.decision.criteria import ATTACK, CLEAN
from robusttune.trial.decision.metrics import Accuracies, Metric
from robusttune.trial.decision.significance import Numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vP*X<>ph8d"


def goals(measured: Accuracies) -> list[Metric]:
    """Select the metrics of the front: clean images, and the attack that arms train against, at its radius."""
    attacks = [metric for metric in measured.metrics if metric.kind == ATTACK]
    at = [metric for metric in attacks if metric.position == "at"]
    robust = next((metric for metric in at if metric.trained), next(iter(at or attacks), None))
    clean = [Metric(CLEAN)] if Metric(CLEAN) in measured.metrics else []
    return [*clean, robust] if robust is not None else clean


def front(measured: Accuracies) -> list[str]:
    """List the arms on the Pareto front: no other arm equals or beats them on every goal and on cost, by their means."""
    columns = [measured.metrics.index(metric) for metric in goals(measured)]
    accuracy = measured.values.mean(axis=1)[:, columns]
    points = np.column_stack([accuracy, -measured.seconds.mean(axis=1)])
    return [arm for number, arm in enumerate(measured.arms) if not _beaten(points, number)]


def draw(measured: Accuracies, folder: Path) -> list[tuple[str, str]]:
    """Plot pairs of cost, clean and robust accuracy, a point for each arm, with bars for the range over seeds.

    Returns:
        The title and the file's name of each plot in the folder.

    Raises:
        ImportError: matplotlib is not installed.
    """
    best = front(measured)
    scale, unit = _unit(float(measured.seconds.max()))
    cost = _Axis(f"training ({unit} a seed)", measured.seconds / scale)
    accuracies = [
        _Axis(_title(metric), 100 * measured.values[:, :, measured.metrics.index(metric)]) for metric in goals(measured)
    ]
    pictures = []
    for number, (across, up) in enumerate([*((cost, accuracy) for accuracy in accuracies), *pairwise(accuracies)], 1):
        file = f"front-{number}.png"
        _plot(measured.arms, best, across, up).savefig(folder / file, dpi=100)
        pictures.append((f"{up.title} against {across.title}", file))
    return pictures


class _Axis(NamedTuple):
    """Values (A, S) of arms and seeds, and their title."""

    title: str
    values: Numbers


def _plot(arms: Sequence[str], best: Sequence[str], across: _Axis, up: _Axis) -> "Figure":
    figure = figure_of(4.6, 4.6)
    panel = figure.subplots()
    for number, arm in enumerate(arms):
        _point(panel, across.values[number], up.values[number], number, label=arm, best=arm in best)
    panel.set(xlabel=across.title, ylabel=up.title)
    panel.grid(alpha=0.3)
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def _beaten(points: Numbers, number: int) -> bool:
    others = np.delete(points, number, axis=0)
    return bool(((others >= points[number]).all(axis=1) & (others > points[number]).any(axis=1)).any())


def _point(panel: "Axes", across: Numbers, up: Numbers, number: int, *, label: str, best: bool) -> None:
    bars = [np.abs(np.array([[axis.min()], [axis.max()]]) - axis.mean()) for axis in (across, up)]
    panel.errorbar(
        [across.mean()],
        [up.mean()],
        xerr=bars[0],
        yerr=bars[1],
        fmt=MARKERS[number % len(MARKERS)],
        color=f"C{number % 10}",
        markersize=9,
        markerfacecolor=f"C{number % 10}" if best else "white",
        elinewidth=1,
        label=label,
    )


def _title(metric: Metric) -> str:
    return "accuracy on clean images (%)" if metric.kind == CLEAN else f"accuracy under attack, {metric} (%)"


def _unit(seconds: float) -> tuple[float, str]:
    return (3600.0, "hours") if seconds > 2 * 3600 else (60.0, "minutes") if seconds > 120 else (1.0, "seconds")


def figure_of(width: float, height: float) -> "Figure":
    """Create a figure outside pyplot's global state."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the picture needs matplotlib: pip install 'robusttune[poc]'") from error
    return with_plain_words(Figure(figsize=(width, height), layout="constrained"))
