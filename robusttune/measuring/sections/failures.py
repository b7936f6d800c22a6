"""The images that a model is fooled on most easily, as pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robusttune.measuring.failures import Failure
from robusttune.measuring.record import percent
from robusttune.measuring.records import Records

__all__ = ["failures"]

ROWS = ("as it is", "under attack", "difference")


def failures(runs: Mapping[str, Records], folder: Path) -> str:
    """Markdown with a picture for each model: images that it knew, what an attack made of them, and the difference.

    Raises:
        ImportError: matplotlib is not installed.
    """
    parts = []
    for number, (name, records) in enumerate(runs.items(), 1):
        if records.failures:
            file = f"failures-{number}.png"
            _draw(records.failures, folder / file)
            parts.append(f"**{name}**: {_said(records.failures)}\n\n![images that {name} is fooled on]({file})")
    return "\n\n".join(parts)


def _said(shown: list[Failure]) -> str:
    largest = max(float(abs(each.found - each.image).max()) for each in shown)
    surest = max(each.confidence for each in shown)
    return (
        f"{len(shown)} images that were right as they are and fell to the smallest radii tried ({shown[0].norm} "
        f"{shown[0].eps:.4g} to {shown[-1].eps:.4g}). It is up to {percent(surest)} sure of the wrong class. No pixel "
        f"changes by more than {largest:.3f} of its range; each difference is stretched to the full range, grey for none."
    )


def _draw(shown: list[Failure], path: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the picture needs matplotlib: pip install 'robusttune[report]'") from error
    figure = Figure(figsize=(1.0 + 1.25 * len(shown), 4.6), layout="constrained")
    axes = figure.subplots(3, len(shown), squeeze=False)
    for column, each in enumerate(shown):
        change = each.found - each.image
        stretched = 0.5 + change / (2 * max(float(abs(change).max()), 1e-12))
        for axis, picture in zip(axes[:, column], (each.image, each.found, stretched), strict=True):
            axis.imshow(_shaped(picture), vmin=0, vmax=1, cmap="gray")
            axis.set(xticks=[], yticks=[])
        axes[0, column].set_title(f"class {each.label}", fontsize=9)
        axes[1, column].set_title(f"read as {each.answer}\n({percent(each.confidence)})", fontsize=9)
        axes[2, column].set_title(f"eps {each.eps:.3g}", fontsize=9)
    for axis, title in zip(axes[:, 0], ROWS, strict=True):
        axis.set_ylabel(title)
    figure.savefig(path, dpi=130)


def _shaped(picture: Any) -> Any:
    """(H,W) for grey, (H,W,3) for colour; of other numbers of channels their mean."""
    if len(picture) == 3:
        return picture.transpose(1, 2, 0).clip(0, 1)
    return picture.mean(0)
