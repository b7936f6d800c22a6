"""Cost and provenance of the measurements."""

from collections.abc import Mapping
from pathlib import Path

from robusttune.measuring.sections import Records, markdown_table

__all__ = ["cost"]

INTRODUCTION = "What the measurements took. What hardening cost on unchanged images is in the verdict."
HEAD = ("model", "evaluation", "seconds", "images forward", "images backward")


def cost(runs: Mapping[str, Records], folder: Path) -> str:
    """Write a table of seconds and of images through the model, then the facts needed to repeat the measurements."""
    facts_of = {name: records.facts for name, records in runs.items() if "evaluations" in records.facts}
    if not facts_of:
        return ""
    rows = [
        (
            name,
            evaluation,
            f"{spent['seconds']:.1f}",
            f"{spent['images forward']:,}",
            f"{spent['images backward']:,}",
        )
        for name, facts in facts_of.items()
        for evaluation, spent in facts["evaluations"].items()
    ]
    lines = [INTRODUCTION, "", markdown_table(HEAD, rows)]
    for name, facts in facts_of.items():
        versions = ", ".join(f"{package} {number}" for package, number in facts["versions"].items())
        lines += [
            "",
            f"**{name}**: {facts['model']}; images {facts['images']}; {facts['pixels']}; threat {facts['threat']};",
            f"seed {facts['seed']}; on {facts['device']}; {versions}.",
        ]
    return "\n".join(lines)
