"""Records as a table of pandas (an extra)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS = ("evaluation", "metric", "value", "low", "high", "images")


def dataframe(rows: Sequence[Mapping[str, Any]]) -> "DataFrame":
    """Return a table with one row for each dict of `Records.to_dict`, and one column for each setting.

    Raises:
        ImportError: pandas is not installed.
    """
    try:
        from pandas import DataFrame
    except ImportError as error:
        raise ImportError("a table of pandas needs pandas: pip install 'robusttune[pandas]'") from error
    flat = [_flat(row) for row in rows]
    return DataFrame(flat, columns=list(dict.fromkeys([*COLUMNS, *(key for row in flat for key in row)])))


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without nested values; a setting that has the name of a column is marked as a setting."""
    low, high = row["interval"]
    first = {**row, "low": low, "high": high}
    settings = {f"setting {key}" if key in COLUMNS else key: value for key, value in row["setting"].items()}
    return {**{key: first[key] for key in COLUMNS}, **settings}
