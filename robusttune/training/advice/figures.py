"""Figures that the advice rests on, read from `figures.json`, which `python -m examples.study.figures` makes from the studies."""

import json
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from robusttune.model.input_shapes import LARGE_SIDE
from robusttune.run.settings import shown_radius

Row: TypeAlias = dict[str, Any]  # a line of the file

PATH = Path(__file__).with_name("figures.json")
UNKNOWN = "unknown"


@cache
def figures() -> Row:
    """Return the content of `figures.json`."""
    content: Row = json.loads(PATH.read_text(encoding="utf-8"))
    return content


def rows(group: str) -> list[Row]:
    """Return the lines of a group, such as "default" or "labels"."""
    found: list[Row] = figures()[group]
    return found


def measured(study: str) -> str:
    """Say where a figure of this project comes from.

    Example:
        >>> measured("corruptions")
        'measured by us (docs/corruptions.md#which-training-helps; `python examples/corruption_study.py`)'
    """
    facts = figures()["studies"][study]
    return f"measured by us ({facts['page']}; `{facts['command']}`)"


def published(name: str) -> str:
    """Say where a setting of the literature comes from.

    Example:
        >>> published("large linf")
        'from the literature (Singh et al., arXiv:2303.01870)'
    """
    return f"from the literature ({figures()['literature']['settings'][name]})"


class Sought(NamedTuple):
    """The situation that a figure is sought for.

    Attributes:
        norm, eps: the norm and the radius of the adversary.
        channels, side: number of channels, and side in pixels, of the images.
        patches: the net cuts images into patches; None if there is no model.
        images: how many there are; None if that is not known.
    """

    norm: str
    eps: float
    channels: int
    side: int
    patches: bool | None
    images: int | None


def nearest(among: Sequence[Row], sought: Sought) -> Row | None:
    """Return the measured case that is nearest; None if none has this norm and images of a comparable size.

    Comparable are images of at least half and at most twice the side, of which neither or both are large. Colour counts before
    the kind of net, and this before the size, the radius and the number of images.
    """
    fitting = [row for row in among if row["norm"] == sought.norm and is_comparable(int(row["side"]), sought.side)]
    return min(fitting, key=lambda row: _distance(row, sought), default=None)


def is_comparable(measured_side: int, side: int) -> bool:
    """Return True for images of at least half and at most twice the side, neither or both of which are large.

    Example:
        >>> is_comparable(32, 28), is_comparable(32, 64), is_comparable(32, 96), is_comparable(96, 192)
        (True, True, False, False)
    """
    same_kind = (measured_side >= LARGE_SIDE) == (side >= LARGE_SIDE)
    return same_kind and measured_side / 2 <= side <= 2 * measured_side


def _distance(row: Row, sought: Sought) -> tuple[float, ...]:
    eps = abs(math.log(row["eps"] / sought.eps)) if sought.eps > 0 else 0.0
    images = 0.0 if sought.images is None else abs(math.log(row["images"] / max(1, sought.images)))
    side = abs(math.log(row["side"] / sought.side))
    return (
        (row["channels"] == 1) != (sought.channels == 1),
        sought.patches is not None and row["patches"] != sought.patches,
        round(eps + side, 1),
        images,
    )


def differences(row: Row, sought: Sought) -> str:
    """List in words how a measured case differs from the situation; empty if it does not by much."""
    found = []
    if (row["channels"] == 1) != (sought.channels == 1):
        found.append(f"its images are {'grey' if row['channels'] == 1 else 'in colour'}")
    if sought.patches is not None and row["patches"] != sought.patches:
        found.append("its net is a small transformer" if row["patches"] else "its net is a small CNN")
    if not math.isclose(row["eps"], sought.eps, rel_tol=0.25):
        found.append(f"its eps is {shown_radius(row['eps'])}")
    if row["side"] != sought.side:
        found.append(f"its images have {row['side']} px")
    if sought.images is not None and not row["images"] / 2 <= sought.images <= 2 * row["images"]:
        found.append(f"it has {row['images']:,} images")
    return ", ".join(found)


def percent(row: Row, name: str) -> str:
    """Write a share of a row in percent, with its standard deviation over seeds where there are several.

    Example:
        >>> percent({"clean": 0.818, "spread": {"clean": 0.0064}}, "clean"), percent({"clean": 0.868}, "clean")
        ('81.8% ± 0.6', '86.8%')
    """
    spread = row.get("spread", {}).get(name)
    return f"{100 * row[name]:.1f}%{'' if spread is None else f' ± {100 * spread:.1f}'}"


def case_in_words(row: Row) -> str:
    """Name a measured case: its net, its images and the seeds.

    Example:
        >>> case_in_words({"model": "net", "images": 4000, "channels": 3, "side": 32, "data": "photographs", "seeds": 1})
        'net, 4,000 colour images of photographs, 32 px, 1 seed'
    """
    colour = "grey" if row["channels"] == 1 else "colour"
    seeds = row.get("seeds", 1)
    return f"{row['model']}, {row['images']:,} {colour} images of {row['data']}, {row['side']} px, {seeds} seed{'s' * (seeds != 1)}"
