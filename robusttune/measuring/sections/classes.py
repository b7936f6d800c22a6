"""Which classes lose most."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from robusttune.measuring.record import Record, percent
from robusttune.measuring.records import Records

__all__ = ["classes"]

SHOWN = 20


def classes(runs: Mapping[str, Records], folder: Path) -> str:
    """Markdown: for each model the accuracy of each class on images as they are and under attack, worst drops first."""
    return "\n\n".join(part for name, records in runs.items() if (part := _of_one(name, records)))


def _of_one(name: str, records: Records) -> str:
    clean = next((each for each in records.where("clean") if each.right is not None), None)
    attacked = _attacked(records)
    if clean is None or attacked is None or not records.labels:
        return ""
    images = Counter(records.labels)
    before, after = (_right(record, records.labels) for record in (clean, attacked))
    drops = {label: (before[label] - after[label]) / count for label, count in images.items()}
    worst = sorted(drops, key=lambda label: -drops[label])
    setting = attacked.setting
    head = f"**{name}**, under {setting['norm']} up to {setting['eps']:.4g} by {attacked.evaluation}:"
    lines = [head, "", "| class | images | as they are | under attack | drop |", "|---|---|---|---|---|"]
    for label in worst[:SHOWN]:
        count = images[label]
        shares = f"{percent(before[label] / count)} | {percent(after[label] / count)}"
        lines.append(f"| {label} | {count} | {shares} | {100 * drops[label]:.1f} points |")
    if len(worst) > SHOWN:
        lines += ["", f"The {SHOWN} of {len(worst)} classes that lose most."]
    return "\n".join(lines)


def _attacked(records: Records) -> Record | None:
    """The smallest robust accuracy at the training radius."""
    threat = str(records.facts.get("threat", ""))
    at_radius = [
        record
        for record in records
        if record.right is not None
        and {"norm", "eps"} <= set(record.setting)
        and threat == f"{record.setting['norm']} eps {record.setting['eps']:.6g}"
        and record.evaluation in ("sweep", "strong", "autoattack")
    ]
    return min(at_radius, key=lambda record: record.value, default=None)


def _right(record: Record, labels: tuple[int, ...]) -> Counter[int]:
    assert record.right is not None
    return Counter(label for label, right in zip(labels, record.right, strict=True) if right)
