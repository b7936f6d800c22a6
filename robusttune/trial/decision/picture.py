"""Picture of a trial's arms: accuracy on each need, with its interval."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robusttune.trial.decision.metrics import Accuracies, Metric, label
from robusttune.trial.decision.pareto import figure_of
from robusttune.trial.decision.significance import FEWEST_SEEDS, half_width

FILE = "arms.png"
WIDTH, ROW = 3.6, 0.34  # inches


def draw_arms(measured: Accuracies, needs: Sequence[Metric], folder: Path) -> str:
    """Draw each arm's mean on each need with its 95% interval over seeds, and return the file's name in the folder.

    With fewer than three seeds the bar is the range over seeds. The arm that does nothing has none.

    Raises:
        ImportError: matplotlib is not installed.
    """
    rows = np.arange(len(measured.arms))[::-1]
    figure = figure_of(max(4.6, WIDTH * len(needs)), 1.1 + ROW * len(rows))
    panels = np.atleast_1d(figure.subplots(1, len(needs), sharey=True))
    for panel, need in zip(panels, needs, strict=True):
        values = 100 * measured.values[:, :, measured.metrics.index(need)]
        means = values.mean(axis=1)
        if values.shape[1] >= FEWEST_SEEDS:
            half = half_width(values.std(axis=1, ddof=1) / np.sqrt(values.shape[1]), values.shape[1] - 1)
            bars = np.stack([half, half])
        else:
            bars = np.stack([means - values.min(axis=1), values.max(axis=1) - means])
        panel.errorbar(means, rows, xerr=bars, fmt="o", color="#2a6f97", capsize=3)
        panel.set(xlabel=f"{label(need)} (%)", yticks=rows, yticklabels=measured.arms)
        panel.grid(axis="x", alpha=0.3)
    figure.savefig(folder / FILE, dpi=100)
    return FILE
