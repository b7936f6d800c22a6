"""What speaks against believing the numbers, at the top of a report."""

from collections.abc import Mapping
from pathlib import Path

from robusttune.measuring.records import Records

__all__ = ["sanity"]


def sanity(runs: Mapping[str, Records], folder: Path) -> str:
    """Markdown: for each model what the checks of `sanity` found, or that they found nothing."""
    return "\n\n".join(_of_one(name, found) for name, records in runs.items() if (found := records.where("sanity")))


def _of_one(name: str, records: Records) -> str:
    doubts = [record for record in records if not record.setting["ok"]]
    if not doubts:
        return (
            f"**{name}**: {len(records)} checks on {records[0].images} images found no sign that its numbers are false."
        )
    lines = [f"- {record.metric}: {record.setting['says']}" for record in doubts]
    head = (
        f"**{name}: do not rely on these numbers before this is cleared up** ({len(doubts)} of {len(records)} checks):"
    )
    return "\n".join([head, "", *lines])
