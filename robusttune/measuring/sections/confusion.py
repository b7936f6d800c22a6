"""The classes that images are taken for under attack."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from robusttune.measuring.attacked import attacks_in, clean_of, judged_at
from robusttune.measuring.sections import Record, Records, markdown_table, named, percent

__all__ = ["confusion"]

SHOWN = 12


def confusion(runs: Mapping[str, Records], folder: Path) -> str:
    """Write a table for each model: which class becomes which under attack, the most frequent first.

    It counts images that are right as they are, at the radius that the verdict is about, under the strongest attack there.
    """
    judged = judged_at(runs)
    if judged is None:
        return ""
    texts = []
    for name, records in runs.items():
        attacked = strongest([record for record in attacks_in(records) if judged.adversary.fits(record)])
        if attacked is not None and records.labels:
            texts.append(f"**{name}**, {judged.adversary}, by {attacked.evaluation}: {_text_of(records, attacked)}")
    return "\n\n".join(texts)


def strongest(attacks: list[Record]) -> Record | None:
    """Return the Record of the lowest accuracy that holds the answers to single images; None if none does."""
    return min((each for each in attacks if each.answers is not None), key=lambda each: each.value, default=None)


def pairs_of(records: Records, attacked: Record) -> tuple[Counter[tuple[int, int]], Counter[int]]:
    """Count (label, answer under attack) of images that fell, and the images of each label that were right as they are."""
    clean = clean_of(records)
    right = [True] * len(records.labels) if clean is None or clean.right is None else clean.right
    rows = [
        (label, answer)
        for label, answer, was_right in zip(records.labels, attacked.answers or (), right, strict=True)
        if was_right
    ]
    return Counter(pair for pair in rows if pair[0] != pair[1]), Counter(label for label, _ in rows)


def _text_of(records: Records, attacked: Record) -> str:
    pairs, images = pairs_of(records, attacked)
    if not pairs:
        return f"none of the {images.total():,} images that are right as they are became another class."
    head = ["class", "becomes", "images", "of those right as they are"]
    rows = [
        [*(_name(each, records) for each in pair), count, percent(count / images[pair[0]])]
        for pair, count in pairs.most_common(SHOWN)
    ]
    text = f"{pairs.total():,} of {images.total():,} images that are right as they are became another class."
    if len(pairs) > SHOWN:
        text += f" The {SHOWN} most frequent of {len(pairs)} pairs:"
    return f"{text}\n\n{markdown_table(head, rows, right=[2, 3])}"


def _name(label: int, records: Records) -> str:
    return named(label, records.classes) if records.classes else f"class {label}"
