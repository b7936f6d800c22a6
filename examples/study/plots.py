"""Draw the pictures of the search: accuracy against the radius, all arms; and against time, those that count."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING

from examples.study.cases import SEARCHED
from examples.study.records import FACTORS, ROOT, Facts
from examples.study.search import ARMS, FINALISTS, SHIPPED, STUDY, TIMES
from robusttune.measuring.sections._figure import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("clean", *(f"{factor:g} eps" for factor in FACTORS))
FILE, TIME_FILE = ROOT / "docs" / "search.svg", ROOT / "docs" / "search-time.svg"
PLACES = (0.0, *FACTORS)
MARKS = (0.25, 0.5, 1, 2, 4, 8)  # of the axis of time
LINES = ("the default", "PGD-10 at its best")
AS_SHIPPED = "PGD-10 as others ship it"
COLOURS = {"the default": "C0", "PGD-10 at its best": "C1", "the default before": "0.2", AS_SHIPPED: "C3"}


def drawn() -> list[Facts]:
    """The runs that the picture shows."""
    runs = STUDY.runs()
    return [run for run in runs if run["setting"] in SEARCHED and all(column in run for column in COLUMNS)]


def fingerprint() -> str:
    """A hash of the numbers that the pictures show, which stands in their files."""
    facts = sorted([run["setting"], run["arm"], run["seed"], *(run[column] for column in COLUMNS)] for run in drawn())
    return hashlib.blake2b(json.dumps([facts, FINALISTS]).encode(), digest_size=8).hexdigest()


def draw() -> None:
    """Write both pictures of the records, with a panel for each setting.

    Raises:
        ImportError: matplotlib is not installed.
    """
    _draw(FILE, _against_radius, list(SEARCHED))
    _draw(TIME_FILE, _against_time, [name for name in SEARCHED if _timed(name)])


def _draw(file: Path, panel: Callable[["Axes", str], None], settings: list[str]) -> None:
    rows = -(-len(settings) // 2)
    figure = new_figure(10, 3.5 * rows)
    import matplotlib as mpl

    for axis, setting in zip(figure.subplots(rows, 2, sharey=True, squeeze=False).flat, settings, strict=False):
        panel(axis, setting)
        axis.set_title(SEARCHED[setting].title, fontsize=10)
        axis.grid(alpha=0.3)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3 if len(labels) % 3 == 0 else 2)
    with mpl.rc_context({"svg.hashsalt": "search"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Description": f"records {fingerprint()}"})


def _timed(setting: str) -> list[Facts]:
    """The runs of a setting that differ from finalists in their length alone."""
    return [run for run in drawn() if run["setting"] == setting and str(run["arm"]).endswith(" time")]


def _against_time(axis: "Axes", setting: str) -> None:
    finalists = FINALISTS[setting]
    runs = [run for run in drawn() if run["setting"] == setting and run["seed"] == 0]
    lines = {label: [finalists[label], *(f"{finalists[label]}, x{times:g} time" for times in TIMES)] for label in LINES}
    for label, names in {**lines, AS_SHIPPED: [SHIPPED]}.items():
        mine = sorted((run for run in runs if run["arm"] in names), key=_time)
        for column, style in (("1 eps", "-"), ("1.5 eps", ":")):
            title = f"{label}, {'radius' if column == '1 eps' else '1.5 times the radius'}"
            shape = {"-": "o", ":": "x"}[style] if label == AS_SHIPPED else "o"
            look = {"color": COLOURS[label], "marker": shape, "markersize": 3 + 3 * (shape == "x"), "linestyle": style}
            axis.plot(list(map(_time, mine)), [100 * float(run[column]) for run in mine], label=title, **look)
    axis.set(ylim=(0, 100), xscale="log", xlabel="time, 1 is six epochs of the fast recipe", ylabel="accuracy (%)")
    axis.set_xticks(MARKS, [f"{mark:g}" for mark in MARKS])
    axis.minorticks_off()


def _time(run: Facts) -> float:
    """How many times the reference's seconds a run has: its seconds depend on what else the processor did that day."""
    return ARMS[str(run["arm"])].times


def _against_radius(axis: "Axes", setting: str) -> None:
    arms = dict[str, list[Facts]]()
    for run in drawn():
        if run["setting"] == setting and not str(run["arm"]).endswith(" time"):
            arms.setdefault(str(run["arm"]), []).append(run)
    labels = {arm: label for label, arm in FINALISTS[setting].items()}
    for arm, seeds in arms.items():
        means = [100 * mean(float(run[column]) for run in seeds) for column in COLUMNS]
        if arm not in labels:
            axis.plot(PLACES, means, color="0.8", linewidth=0.8, zorder=1)
            continue
        spread = [100 * stdev(float(run[column]) for run in seeds) if len(seeds) > 1 else 0.0 for column in COLUMNS]
        look = {"color": COLOURS[labels[arm]], "marker": "o", "markersize": 3, "capsize": 2}
        axis.errorbar(PLACES, means, spread, label=labels[arm], **look)
    axis.set(ylim=(0, 100), xlabel="radius, as a multiple of eps", ylabel="accuracy (%)", xticks=PLACES)
