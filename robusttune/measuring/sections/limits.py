"""Limits of the numbers, and a list of what was not measured."""

from collections.abc import Mapping
from pathlib import Path

from robusttune.measuring.not_measured import not_measured
from robusttune.measuring.sections import Records, caveat, reworded

__all__ = ["limits"]

LIMITS = (
    "An accuracy under attack is an upper bound: a stronger attack may find more. It holds for changes of pixels up to the "
    "radius named, not for other changes, nor for larger ones.",
    "Numbers are of these images: on other images of the same kind they may differ by the intervals, on other kinds by more.",
    "Of two models that differ by less than their intervals, neither can be called better from this; `compare` looks at "
    "the same images.",
)
QUICK = "What `quick` measured on {images} images with one attack is a first look: it is for finding mistakes, not a result."
MADE_HERE = "Corruptions were made in memory: their numbers are not those of published benchmark files."


def limits(runs: Mapping[str, Records], folder: Path) -> str:
    """Write what not to conclude from the numbers, and a list of what was not measured."""
    everything = [record for records in runs.values() for record in records]
    alone = any(caveat(records.facts) is not None for records in runs.values())
    said = list(map(reworded, LIMITS) if alone else LIMITS)
    if any(str(record.setting.get("protocol", "")).startswith("made here") for record in everything):
        said.append(MADE_HERE)
    quick = [record for record in everything if record.evaluation == "quick"]
    if quick:
        said.append(QUICK.format(images=quick[0].images))
    missing = not_measured(runs)
    lines = ["What not to conclude:", "", *(f"- {each}" for each in said), ""]
    return "\n".join([*lines, "What was not measured:", "", *(f"- {each}" for each in missing)])
