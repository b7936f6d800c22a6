"""Sanity checks that the measurements failed, at the top of a report."""

from collections.abc import Mapping
from pathlib import Path

from robusttune.measuring.sections import Records

__all__ = ["sanity"]


def sanity(runs: Mapping[str, Records], folder: Path) -> str:
    """List for each model the checks of the `sanity` evaluation that failed, or say that none did."""
    checked = {name: part for name, records in runs.items() if (part := records.where("sanity"))}
    return "\n\n".join(_text_of(name, records) for name, records in checked.items())


def _text_of(name: str, records: Records) -> str:
    failed = [record for record in records if not record.setting["ok"]]
    if not failed:
        return (
            f"**{name}**: {len(records)} checks on {records[0].images} images found no sign that its numbers are false."
        )
    lines = [f"- {record.metric}: {record.setting['says']}" for record in failed]
    head = (
        f"**{name}: do not rely on these numbers before this is cleared up** ({len(failed)} of {len(records)} checks):"
    )
    return "\n".join([head, "", *lines])
