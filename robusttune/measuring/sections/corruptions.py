"""Accuracy by corruption and severity, as a picture and tables."""

from collections.abc import Mapping
from pathlib import Path

from robusttune.measuring.sections import Record, Records, markdown_table, measured_word, percent
from robusttune.measuring.sections._figure import new_figure

__all__ = ["corruptions"]


def corruptions(runs: Mapping[str, Records], folder: Path) -> str:
    """Write for each model and protocol the mean accuracies and a table by corruption and severity; draw heat maps.

    Raises:
        ImportError: matplotlib is not installed.
    """
    measured = {title: part for name, records in runs.items() for title, part in _by_protocol(name, records).items()}
    if not measured:
        return ""
    word = measured_word(runs.values())
    _draw(measured, folder / "corruptions.png", word)
    picture = f"![{word} by corruption and severity](corruptions.png)"
    return "\n\n".join([picture, *(_text_of(name, records, word) for name, records in measured.items())])


def _by_protocol(name: str, records: Records) -> dict[str, Records]:
    """Return the Records of each protocol by the model's name, with a number where there are several."""
    found = records.where("corruptions")
    protocols = list(dict.fromkeys(record.setting["protocol"] for record in found))
    titles = [name] if len(protocols) == 1 else [f"{name} ({number})" for number in range(1, len(protocols) + 1)]
    return {title: found.where(protocol=protocol) for title, protocol in zip(titles, protocols, strict=True)}


def _draw(runs: Mapping[str, Records], path: Path, word: str) -> None:
    """Draw a heat map for each model and protocol: one row a corruption, one column a severity."""
    single = {name: [record for record in records if "severity" in record.setting] for name, records in runs.items()}
    names = list(dict.fromkeys(record.setting["corruption"] for records in single.values() for record in records))
    severities = sorted({record.setting["severity"] for records in single.values() for record in records}, key=str)
    figure = new_figure(2 + 2.6 * len(runs), 1.2 + 0.3 * len(names))
    axes = figure.subplots(1, len(runs), squeeze=False, sharey=True)[0]
    for axis, (name, records) in zip(axes, single.items(), strict=True):
        cells = {(record.setting["corruption"], record.setting["severity"]): 100 * record.value for record in records}
        values = [[cells.get((row, column), float("nan")) for column in severities] for row in names]
        heat_map = axis.imshow(values, vmin=0, vmax=100, cmap="viridis", aspect="auto")
        for row, line in enumerate(values):
            for column, value in enumerate(line):
                colour = "white" if value < 60 else "black"
                axis.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color=colour)
        axis.set(title=name, xlabel="severity", xticks=range(len(severities)), yticks=range(len(names)))
        axis.set_xticklabels([severity or "–" for severity in severities])
        axis.set_yticklabels(names)
    figure.colorbar(heat_map, ax=axes, label=f"{word} (%)")
    figure.savefig(path, dpi=130)


def _text_of(name: str, records: Records, word: str) -> str:
    single = [record for record in records if "severity" in record.setting]
    severities = sorted({record.setting["severity"] for record in single}, key=str)
    names = list(dict.fromkeys(record.setting["corruption"] for record in single))
    cells = {(record.setting["corruption"], record.setting["severity"]): percent(record.value) for record in single}
    means: dict[str, list[Record]] = {}
    for record in records:
        if "corruption" in record.setting and "severity" not in record.setting:
            means.setdefault(record.setting["corruption"], []).append(record)
    head = ["corruption", *(f"severity {severity}" if severity else word for severity in severities), "mean"]
    rows = [
        [row, *(cells.get((row, severity), "–") for severity in severities), _mean(means.get(row, []))] for row in names
    ]
    totals = [_total(record) for record in records if "corruption" not in record.setting]
    protocol = records[0].setting["protocol"]
    note = " * in training, too: this says nothing about corruptions the model has not seen." if _seen(records) else ""
    return "\n".join([f"**{name}**, {protocol}.{note}", "", *totals, "", markdown_table(head, rows)])


def _mean(records: list[Record]) -> str:
    """Write a corruption's mean; "–" where there is none, or where several are over different severities."""
    if len({record.value for record in records}) != 1:
        return "–"
    return percent(records[0].value) + (" *" if "in training" in records[0].setting else "")


def _total(record: Record) -> str:
    low, high = record.interval
    over, seen = record.setting.get("over", "all"), " *" if "in training" in record.setting else ""
    return f"- {record.metric}, {over}: {percent(record.value)} ({100 * low:.1f}–{100 * high:.1f}), {record.images} images{seen}"


def _seen(records: Records) -> bool:
    return any("in training" in record.setting for record in records)
