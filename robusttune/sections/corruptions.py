"""Accuracy by corruption and severity, as tables."""

from collections.abc import Mapping
from pathlib import Path

from robusttune.records import Record, Records, percent

__all__ = ["corruptions"]


def corruptions(runs: Mapping[str, Records], folder: Path) -> str:
    """For each model Markdown with its means over families, the accuracy by corruption and severity, and the protocol."""
    parts = [_of_one(name, records.where("corruptions")) for name, records in runs.items()]
    return "\n\n".join(part for part in parts if part)


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
