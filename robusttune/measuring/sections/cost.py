"""What measuring has cost, and with what it was done."""

from collections.abc import Mapping
from pathlib import Path

from robusttune.measuring.records import Records

__all__ = ["cost"]


def cost(runs: Mapping[str, Records], folder: Path) -> str:
    """Markdown: seconds and images through the model by evaluation, and the facts that make a measurement repeatable."""
    known = {name: records.facts for name, records in runs.items() if records.facts}
    if not known:
        return ""
    lines = ["| model | evaluation | seconds | images forward | images backward |", "|---|---|---|---|---|"]
    for name, facts in known.items():
        for evaluation, spent in facts["evaluations"].items():
            passes = f"{spent['images forward']:,} | {spent['images backward']:,}"
            lines.append(f"| {name} | {evaluation} | {spent['seconds']:.1f} | {passes} |")
    for name, facts in known.items():
        versions = ", ".join(f"{package} {number}" for package, number in facts["versions"].items())
        lines += [
            "",
            f"**{name}**: {facts['model']}; images {facts['images']}; {facts['pixels']}; threat {facts['threat']};",
        ]
        lines += [f"seed {facts['seed']}; on {facts['device']}; {versions}."]
    return "\n".join(lines)
