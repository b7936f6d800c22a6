"""The classes that lose most accuracy under attack."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from robusttune.measuring.sections import Record, Records, markdown_table, named, percent, shown_radius

__all__ = ["classes"]

SHOWN = 20


def classes(runs: Mapping[str, Records], folder: Path) -> str:
    """Write a table for each model: the accuracy of each class on clean images and under attack, largest drops first."""
    return "\n\n".join(text for name, records in runs.items() if (text := _text_of(name, records)))


def _text_of(name: str, records: Records) -> str:
    clean = next((record for record in records.where("clean") if record.right is not None), None)
    attacked = _attacked(records)
    if clean is None or attacked is None or not records.labels:
        return ""
    images = Counter(records.labels)
    before, after = (_right_by_class(record, records.labels) for record in (clean, attacked))
    drops = {label: (before[label] - after[label]) / count for label, count in images.items()}
    ranked = sorted(drops, key=lambda label: -drops[label])
    norm, eps = attacked.setting["norm"], attacked.setting["eps"]
    rows = [
        (
            named(label, records.classes),
            images[label],
            percent(before[label] / images[label]),
            percent(after[label] / images[label]),
            f"{100 * drops[label]:.1f} points",
        )
        for label in ranked[:SHOWN]
    ]
    table = markdown_table(["class", "images", "as they are", "under attack", "drop"], rows)
    text = f"**{name}**, under {norm} up to {shown_radius(eps)} by {attacked.evaluation}:\n\n{table}"
    if len(ranked) > SHOWN:
        text += f"\n\nThe {SHOWN} of {len(ranked)} classes that lose most."
    return text


def _attacked(records: Records) -> Record | None:
    """Find the smallest robust accuracy at the training radius."""
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


def _right_by_class(record: Record, labels: tuple[int, ...]) -> Counter[int]:
    """Count the right answers for each class."""
    assert record.right is not None
    return Counter(label for label, right in zip(labels, record.right, strict=True) if right)
