"""Which arms no other arm beats on cost, clean and robust accuracy at once, and a picture of that."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from robusttune.trial.decision.criteria import ATTACK, CLEAN
from robusttune.trial.decision.metrics import Measured, Need
from robusttune.trial.decision.significance import Numbers

MARKERS = "osD^vP*X<>ph8d"


def goals(measured: Measured) -> list[Need]:
    """Of the needs clean images, and the attack that arms train against, at its radius."""
    attacks = [need for need in measured.needs if need.kind == ATTACK]
    at = [need for need in attacks if need.place == "at"]
    robust = next((need for need in at if need.trained), next(iter(at or attacks), None))
    found = [Need(CLEAN)] if Need(CLEAN) in measured.needs else []
    return [*found, robust] if robust is not None else found


def front(measured: Measured) -> list[str]:
    """The arms that no other arm equals or beats on every goal and on cost, by their means."""
    columns = [measured.needs.index(need) for need in goals(measured)]
    accuracy = measured.values.mean(axis=1)[:, columns]
    points = np.column_stack([accuracy, -measured.seconds.mean(axis=1)])
    return [arm for number, arm in enumerate(measured.arms) if not _beaten(points, number)]


def draw(measured: Measured, folder: Path) -> list[tuple[str, str]]:
    """Pictures in the folder, each with what it shows: pairs of cost, clean and robust accuracy, a point an arm, a bar the
    range over seeds.

    Raises:
        ImportError: matplotlib is not installed.
    """
    found, on_it = goals(measured), front(measured)
    scale, unit = _unit(float(measured.seconds.max()))
    cost = (f"training ({unit} a seed)", measured.seconds / scale)
    axes = [(_title(need), 100 * measured.values[:, :, measured.needs.index(need)]) for need in found]
    pictures = []
    for number, (across, up) in enumerate([*((cost, each) for each in axes), *pairwise(axes)], 1):
        figure = _figure(4.6, 4.6)
        panel = figure.subplots()
        for arm, name in enumerate(measured.arms):
            _point(panel, across[1][arm], up[1][arm], arm, label=name, best=name in on_it)
        panel.set(xlabel=across[0], ylabel=up[0])
        panel.grid(alpha=0.3)
        figure.legend(
            *panel.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8, frameon=False
        )
        pictures.append((f"{up[0]} against {across[0]}", f"front-{number}.png"))
        figure.savefig(folder / pictures[-1][1], dpi=100)
    return pictures


def _beaten(points: Numbers, number: int) -> bool:
    others = np.delete(points, number, axis=0)
    return bool(((others >= points[number]).all(axis=1) & (others > points[number]).any(axis=1)).any())


def _point(panel: Any, across: Numbers, up: Numbers, number: int, *, label: str, best: bool) -> None:
    bars = [np.abs(np.array([[each.min()], [each.max()]]) - each.mean()) for each in (across, up)]
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


def _title(need: Need) -> str:
    return "accuracy on clean images (%)" if need.kind == CLEAN else f"accuracy under attack, {need} (%)"


def _unit(seconds: float) -> tuple[float, str]:
    return (3600.0, "hours") if seconds > 2 * 3600 else (60.0, "minutes") if seconds > 120 else (1.0, "seconds")


def _figure(width: float, height: float) -> Any:
    """A figure of its own, outside pyplot's global state."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the picture needs matplotlib: pip install 'robusttune[poc]'") from error
    return Figure(figsize=(width, height), layout="constrained")
