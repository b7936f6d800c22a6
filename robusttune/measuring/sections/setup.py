"""The setup of the measurement: model, images, adversary, training, date and versions."""

from collections.abc import Mapping
from pathlib import Path

from robusttune.measuring.sections import Records, markdown_table
from robusttune.measuring.setting_words import UNKNOWN, facts_in_words, notes_of

__all__ = ["setup"]

HINT = (
    'What is not known was not kept: `evaluate(..., run=…)` keeps the facts of the training run, `notes={{"data": …, "split": …}}` '
    "those that you name, and `training_loader=` looks for training images among those measured."
)


def setup(runs: Mapping[str, Records], folder: Path) -> str:
    """Write a table of the facts of each model's measurement; those that are the same for all models stand in one column."""
    rows = facts_in_words(runs)
    common = [row for row in rows if len(set(row[1:])) == 1]
    own = [row for row in rows if len(set(row[1:])) > 1]
    asked = "How often is each model right, on images as they are and on images changed to mislead it?"
    parts = [f"{asked} {' '.join(_notes(runs))}".strip()]
    if own:
        parts.append(markdown_table(["", *runs], own))
    if common:
        parts.append(
            markdown_table(["", "all models" if len(runs) > 1 else next(iter(runs))], [row[:2] for row in common])
        )
    if any(UNKNOWN in row for row in rows):
        parts.append(HINT.format())
    return "\n\n".join(parts)


def _notes(runs: Mapping[str, Records]) -> list[str]:
    return [f"Notes on {name}: {notes}." for name, records in runs.items() if (notes := notes_of(records))]
