"""Images that fool the model most easily, as pictures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from robusttune.measuring.failures import Failure
from robusttune.measuring.sections import Records, named, percent, shown_radius, whose
from robusttune.measuring.sections._figure import new_figure

__all__ = ["failures"]

LONGEST = 14  # characters of a name above a picture
ROWS = ("as it is", "under attack", "difference")


def failures(runs: Mapping[str, Records], folder: Path) -> str:
    """Draw a picture for each model: images that it classified right, their adversarial images, and the difference.

    Raises:
        ImportError: matplotlib is not installed.
    """
    parts = []
    for number, (name, records) in enumerate(runs.items(), 1):
        if records.failures:
            file = f"failures-{number}.png"
            _draw(records.failures, folder / file, records.classes)
            text = f"{_summary(records.failures, whose(records.facts))} The mistakes: {_mistakes(records.failures, records.classes)}."
            parts.append(f"**{name}**: {text}\n\n![images that {name} is fooled on]({file})")
    return "\n\n".join(parts)


def _summary(shown: list[Failure], answers: str | None) -> str:
    largest = max(float(abs(failure.found - failure.image).max()) for failure in shown)
    right = "were right" if answers is None else f"agreed with {answers}"
    surest = max(failure.confidence for failure in shown)
    return (
        f"{len(shown)} images that {right} as they are and fell to the smallest radii tried ({shown[0].norm} "
        f"{shown_radius(shown[0].eps)} to {shown_radius(shown[-1].eps)}). It is up to {percent(surest)} sure of the wrong class. No pixel "
        f"changes by more than {largest:.3f} of its range; each difference is stretched to the full range, grey for none."
    )


def _mistakes(shown: list[Failure], classes: Sequence[str]) -> str:
    """List what was taken for what, by the names of the classes; by their numbers where the names are not known."""
    pairs = Counter((named(failure.label, classes), named(failure.answer, classes)) for failure in shown)
    kind = "" if classes else "class "
    return ", ".join(
        f"{kind}{label} taken for {answer}{f' ({count} times)' * (count > 1)}"
        for (label, answer), count in pairs.items()
    )


def _draw(shown: list[Failure], path: Path, classes: Sequence[str]) -> None:
    figure = new_figure(1.0 + 1.25 * len(shown), 4.6)
    axes = figure.subplots(3, len(shown), squeeze=False)
    for column, failure in enumerate(shown):
        change = failure.found - failure.image
        stretched = 0.5 + change / (2 * max(float(abs(change).max()), 1e-12))
        for axis, picture in zip(axes[:, column], (failure.image, failure.found, stretched), strict=True):
            axis.imshow(_displayed(picture), vmin=0, vmax=1, cmap="gray")
            axis.set(xticks=[], yticks=[])
        label, answer = (_short(named(each, classes)) for each in (failure.label, failure.answer))
        axes[0, column].set_title(label if classes else f"class {label}", fontsize=9)
        axes[1, column].set_title(f"taken for {answer}\n({percent(failure.confidence)})", fontsize=9)
        axes[2, column].set_title(f"eps {shown_radius(failure.eps)}", fontsize=9)
    for axis, title in zip(axes[:, 0], ROWS, strict=True):
        axis.set_ylabel(title)
    figure.savefig(path, dpi=130)


def _short(name: str) -> str:
    """Cut a name that is wider than its picture."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _displayed(picture: np.ndarray) -> np.ndarray:
    """Convert an image (C,H,W) for matplotlib: (H,W,3) for colour, else the mean of the channels (H,W)."""
    return np.asarray(picture.transpose(1, 2, 0).clip(0, 1) if len(picture) == 3 else picture.mean(0))
