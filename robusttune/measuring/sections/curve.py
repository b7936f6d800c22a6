"""Accuracy against the radius of the adversary, as a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from robusttune.measuring.attacked import judged_at
from robusttune.measuring.sections import Record, Records, measured_word
from robusttune.measuring.sections._figure import mark_radii, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["curve"]


def curve(runs: Mapping[str, Records], folder: Path) -> str:
    """Draw `curve.png`: for each norm, every model's accuracy against eps, with 95% intervals.

    Raises:
        ImportError: matplotlib is not installed.
    """
    sweeps = {name: records.where("sweep") for name, records in runs.items()}
    norms = list(dict.fromkeys(record.setting["norm"] for records in sweeps.values() for record in records))
    if not norms:
        return ""
    word = measured_word(runs.values())
    figure = new_figure(7, 3.4 * len(norms))
    axes = figure.subplots(len(norms), 1, squeeze=False)
    judged = judged_at(runs)
    for axis, norm in zip(axes[:, 0], norms, strict=True):
        if judged is not None and judged.adversary.norm == norm:
            axis.axvline(judged.adversary.eps, color="grey", linestyle=":", label="radius of the verdict")
        _draw(axis, norm, {name: records.where(norm=norm) for name, records in sweeps.items()}, word)
    figure.savefig(folder / "curve.png", dpi=150)
    return f"![{word} against the radius of the adversary](curve.png)"


def _draw(axis: "Axes", norm: object, sweeps: Mapping[str, Records], word: str) -> None:
    for name, records in sweeps.items():
        by_attack: dict[str, list[Record]] = {}
        for record in records:
            by_attack.setdefault(record.setting.get("attack", ""), []).append(record)
        for attack, points in by_attack.items():
            points.sort(key=lambda record: record.setting["eps"])
            eps = [record.setting["eps"] for record in points]
            label = name if len(by_attack) == 1 else f"{name}, {attack}"
            (line,) = axis.plot(eps, [100 * record.value for record in points], marker="o", label=label)
            low, high = zip(*(record.interval for record in points), strict=True)
            axis.fill_between(eps, [100 * v for v in low], [100 * v for v in high], alpha=0.15, color=line.get_color())
    mark_radii(axis, [record.setting["eps"] for records in sweeps.values() for record in records])
    axis.set(xlabel=f"eps ({norm}, pixels on [0, 1])", ylabel=f"{word} (%)", ylim=(0, 100), title=f"{norm} adversary")
    axis.grid(alpha=0.3)
    axis.legend()
