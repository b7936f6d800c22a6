"""Figures for the pictures of a report."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from robusttune.run.settings import shown_radius

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


CLOSEST = 0.1  # of the largest radius, between two labels of an axis


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure, in inches, outside pyplot's global state.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the picture needs matplotlib: pip install 'robusttune[report]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def mark_radii(axis: "Axes", radii: Iterable[float]) -> None:
    """Label the horizontal axis with these radii as people write them; those too close to the last label are left out."""
    ordered = sorted(set(radii))
    marked: list[float] = []
    for radius in ordered:
        if not marked or radius - marked[-1] >= CLOSEST * ordered[-1]:
            marked.append(radius)
    axis.set_xticks(marked, [shown_radius(radius) for radius in marked])
