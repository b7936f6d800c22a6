"""Draw the picture of the search: accuracy against the radius of the arms that count, before all others in grey."""

import hashlib
import json
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING

from examples.study.cases import SEARCHED
from examples.study.records import FACTORS, ROOT, Facts
from examples.study.search import FINALISTS, STUDY
from robusttune.measuring.sections._figure import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("clean", *(f"{factor:g} eps" for factor in FACTORS))
FILE = ROOT / "docs" / "search.svg"
PLACES = (0.0, *FACTORS)
COLOURS = {"the default": "C0", "PGD-10 at its best": "C1", "the default before": "0.2"}


def drawn() -> list[Facts]:
    """The runs that the picture shows."""
    runs = STUDY.runs()
    return [run for run in runs if run["setting"] in SEARCHED and all(column in run for column in COLUMNS)]


def fingerprint() -> str:
    """A hash of the numbers that the picture shows, which stands in its file."""
    facts = sorted([run["setting"], run["arm"], run["seed"], *(run[column] for column in COLUMNS)] for run in drawn())
    return hashlib.blake2b(json.dumps([facts, FINALISTS]).encode(), digest_size=8).hexdigest()


def draw(file: Path) -> None:
    """Write the picture of the records: a panel for each of the four settings.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(10, 7)
    import matplotlib as mpl

    runs = drawn()
    for axis, (setting, known) in zip(figure.subplots(2, 2, sharey=True).flat, SEARCHED.items(), strict=True):
        _panel(axis, known.model, [run for run in runs if run["setting"] == setting])
        axis.set_title(known.title, fontsize=10)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    with mpl.rc_context({"svg.hashsalt": "search"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Description": f"records {fingerprint()}"})


def _panel(axis: "Axes", model: str, runs: list[Facts]) -> None:
    arms: dict[str, list[Facts]] = {}
    for run in runs:
        if not str(run["arm"]).endswith("time"):
            arms.setdefault(str(run["arm"]), []).append(run)
    labels = {arm: label for label, arm in FINALISTS[model].items()}
    for arm, seeds in arms.items():
        means = [100 * mean(float(run[column]) for run in seeds) for column in COLUMNS]
        if arm not in labels:
            axis.plot(PLACES, means, color="0.8", linewidth=0.8, zorder=1)
            continue
        spread = [100 * stdev(float(run[column]) for run in seeds) if len(seeds) > 1 else 0.0 for column in COLUMNS]
        look = {"color": COLOURS[labels[arm]], "marker": "o", "markersize": 3, "capsize": 2}
        axis.errorbar(PLACES, means, spread, label=labels[arm], **look)
    axis.set(ylim=(0, 100), xlabel="radius, as a multiple of eps", ylabel="accuracy (%)", xticks=PLACES)
    axis.grid(alpha=0.3)
