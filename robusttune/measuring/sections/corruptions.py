"""Accuracy by corruption and severity, as tables."""

from collections.abc import Mapping
from pathlib import Path

from robusttune.measuring.record import Record, percent
from robusttune.measuring.records import Records

__all__ = ["corruptions"]


def corruptions(runs: Mapping[str, Records], folder: Path) -> str:
    """For each model Markdown with its means over families, the accuracy by corruption and severity, and the protocol."""
    found = {name: part for name, records in runs.items() if (part := records.where("corruptions"))}
    parts = [_of_one(name, records) for name, records in found.items()]
    if found:
        _draw(found, folder / "corruptions.png")
        parts.insert(0, "![accuracy by corruption and severity](corruptions.png)")
    return "\n\n".join(parts)


def _draw(runs: Mapping[str, Records], path: Path) -> None:
    """A heat map for each model: corruptions down, severities across."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the picture needs matplotlib: pip install 'robusttune[report]'") from error
    single = {name: [each for each in records if "severity" in each.setting] for name, records in runs.items()}
    names = list(dict.fromkeys(each.setting["corruption"] for records in single.values() for each in records))
    severities = sorted({each.setting["severity"] for records in single.values() for each in records}, key=str)
    figure = Figure(figsize=(2 + 2.6 * len(runs), 1.2 + 0.3 * len(names)), layout="constrained")
    axes = figure.subplots(1, len(runs), squeeze=False, sharey=True)[0]
    for axis, (name, records) in zip(axes, single.items(), strict=True):
        cells = {(each.setting["corruption"], each.setting["severity"]): 100 * each.value for each in records}
        values = [[cells.get((row, column), float("nan")) for column in severities] for row in names]
        shown = axis.imshow(values, vmin=0, vmax=100, cmap="viridis", aspect="auto")
        for row, line in enumerate(values):
            for column, value in enumerate(line):
                colour = "white" if value < 60 else "black"
                axis.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color=colour)
        axis.set(title=name, xlabel="severity", xticks=range(len(severities)), yticks=range(len(names)))
        axis.set_xticklabels([each or "–" for each in severities])
        axis.set_yticklabels(names)
    figure.colorbar(shown, ax=axes, label="accuracy (%)")
    figure.savefig(path, dpi=130)


def _of_one(name: str, records: Records) -> str:
    if not records:
        return ""
    single = [record for record in records if "severity" in record.setting]
    severities = sorted({record.setting["severity"] for record in single}, key=str)
    names = list(dict.fromkeys(record.setting["corruption"] for record in single))
    cells = {(r.setting["corruption"], r.setting["severity"]): percent(r.value) for r in single}
    means = {r.setting["corruption"]: r for r in records if "corruption" in r.setting and "severity" not in r.setting}
    rows = [
        [each, *(cells.get((each, severity), "–") for severity in severities), _mean(means.get(each))] for each in names
    ]
    head = ["corruption", *(f"severity {each}" if each else "accuracy" for each in severities), "mean"]
    totals = [_total(record) for record in records if "corruption" not in record.setting]
    protocol = records[0].setting["protocol"]
    note = " * in training, too: this says nothing about corruptions the model has not seen." if _seen(records) else ""
    return "\n".join(
        [f"**{name}**, {protocol}.{note}", "", *totals, "", _line(head), "|---" * len(head) + "|", *map(_line, rows)]
    )


def _mean(record: Record | None) -> str:
    return "–" if record is None else percent(record.value) + (" *" if "in training" in record.setting else "")


def _total(record: Record) -> str:
    low, high = record.interval
    over = record.setting.get("over", "all")
    return (
        f"- {record.metric}, {over}: {percent(record.value)} ({100 * low:.1f}–{100 * high:.1f}), {record.images} images"
    )


def _seen(records: Records) -> bool:
    return any("in training" in record.setting for record in records)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
