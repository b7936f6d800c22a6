"""Figures for the pictures of a report."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from robusttune.run.settings import shown_radius

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.figure import Figure


CLOSEST = 0.1  # share of the largest radius, between two labels of an axis


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure, in inches, outside pyplot's global state.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the picture needs matplotlib: pip install 'robusttune[report]'") from error
    return with_plain_words(Figure(figsize=(width, height), layout="constrained"))


def with_plain_words(figure: "Figure") -> "Figure":
    """Return a figure in which dollar signs of names are no formulas, which matplotlib would read or refuse, when it is saved."""
    from matplotlib.text import Text

    draw = figure.draw

    def draw_words(renderer: "RendererBase") -> None:
        for text in figure.findobj(Text):
            text.set_parse_math(False)
        draw(renderer)

    figure.draw = draw_words  # type: ignore[method-assign]
    return figure


def mark_radii(axis: "Axes", radii: Iterable[float]) -> None:
    """Label the horizontal axis with these radii as people write them; those too close to the last label are left out."""
    ordered = sorted(set(radii))
    marked: list[float] = []
    for radius in ordered:
        if not marked or radius - marked[-1] >= CLOSEST * ordered[-1]:
            marked.append(radius)
    axis.set_xticks(marked, [shown_radius(radius) for radius in marked])
