"""Clean and robust accuracy of all models, in one table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from robusttune.measuring.compare import key_of
from robusttune.measuring.sections import (
    ANSWERED,
    Record,
    Records,
    described,
    markdown_table,
    measured_word,
    named,
    percent,
    shown_radius,
)

__all__ = ["summary"]


def summary(runs: Mapping[str, Records], folder: Path) -> str:
    """Write a table with a row for each accuracy and a column for each model, with images and 95% intervals."""
    shown = [(name, record) for name, records in runs.items() for record in records if _is_shown(record)]
    counts = Counter((_label(record), name) for name, record in shown)
    ambiguous = {label for (label, _), count in counts.items() if count > 1} | _other_attacks(shown)

    def row_of(record: Record) -> str:
        label = _label(record)
        return f"{label} ({described(record.setting)})" if label in ambiguous else label

    rows = list(dict.fromkeys(row_of(record) for _, record in shown))
    cells = {(row_of(record), name): _cell(record, runs[name].classes) for name, record in shown}
    word = measured_word(runs.values())
    table = markdown_table([word, *runs], [[row, *(cells.get((row, name), "–") for name in runs)] for row in rows])
    missing = {name: [row for row in rows if (row, name) not in cells] for name in runs}
    said = [f"{name} was not measured by {len(lacks)} of these {len(rows)}" for name, lacks in missing.items() if lacks]
    return f"{table}\n\n– means not measured: {'; '.join(said)}." if said else table


def _other_attacks(shown: Sequence[tuple[str, Record]]) -> set[str]:
    """Return the labels that stand for attacks with different settings, such as steps, which are not set side by side."""
    attacks: dict[str, set[object]] = {}
    for _, record in shown:
        if "norm" in record.setting:
            attacks.setdefault(_label(record), set()).add(key_of(record))
    return {label for label, keys in attacks.items() if len(keys) > 1}


def _is_shown(record: Record) -> bool:
    """Return False for single corruptions and checks, which other sections show."""
    return "corruption" not in record.setting and record.evaluation != "sanity"


def _label(record: Record) -> str:
    setting = record.setting
    if "class" in setting:  # models differ in their worst class, which stands in the cell
        return f"{record.evaluation}, {record.metric}"
    if "protocol" in setting:
        return f"{record.evaluation}, {record.metric}, {setting['over']}, {setting['protocol']}, {record.images} images"
    if "task" in setting:
        return f"{record.evaluation}, {record.metric}, {setting['task']}, {record.images} images"
    if "norm" not in setting:
        metric = "" if record.metric in ANSWERED else f", {record.metric}"
        return f"{record.evaluation}{metric}, {record.images} images"
    attack = setting.get("attack", record.evaluation)
    attack = f"{attack} (quick)" if record.evaluation == "quick" else attack
    return f"{setting['norm']} eps {shown_radius(setting['eps'])} by {attack}, {record.images} images"


def _cell(record: Record, classes: Sequence[str]) -> str:
    low, high = record.interval
    setting = record.setting
    worst_class = f", class {named(setting['class'], classes)}, {record.images} images" if "class" in setting else ""
    return f"{percent(record.value)} ({100 * low:.1f}–{100 * high:.1f}){worst_class}"
