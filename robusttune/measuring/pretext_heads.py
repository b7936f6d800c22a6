"""Pretext heads for measuring."""

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from torch import nn

from robusttune.model.devices import device_of, dtype_of
from robusttune.run.about import read_run
from robusttune.tasks import View
from robusttune.tasks._heads import Heads, load_heads
from robusttune.types import PathLike

HeadsLike: TypeAlias = nn.Module | PathLike


def heads_for(heads: HeadsLike, model: nn.Module, shape: Sequence[int] | None = None) -> Heads:
    """Return a copy of pretext heads in eval mode, on the model's device and in its dtype.

    Args:
        heads: Heads, a RobustLoss, or the folder of a run.
        model: the model whose features they read.
        shape: (C,H,W) of the images to measure; None if the heads are to learn on.

    Raises:
        ValueError: the run's images were of a size at which a head has another number of classes.
    """
    loaded = heads if isinstance(heads, Heads) else getattr(heads, "heads", None) or load_heads(heads, model)
    if shape is not None and isinstance(heads, str | os.PathLike):
        folder = Path(heads)
        run = read_run(folder if folder.is_dir() else folder.parent)
        if run is not None and run.size is not None:
            check_size(loaded, run.size, shape, folder)
    # A copy, as the user may train the original.
    return copy.deepcopy(loaded).to(device_of(model), dtype_of(model)).eval()


def check_size(heads: Heads, trained: tuple[int, int], shape: Sequence[int], folder: Path) -> None:
    """Refuse images (C,H,W) of a size at which answers mean something else: rotation has half turns only unless H = W."""
    channels, *size = shape
    for name in heads.tasks if trained != tuple(size) else ():
        before, now = (
            heads.whole(name, torch.zeros(1, channels, *each), torch.Generator()).view for each in (trained, size)
        )
        if (before.classes, before.meaning) != (now.classes, now.meaning):
            raise ValueError(
                f"the {name} head in {str(folder)!r} was trained on images of {trained[0]}x{trained[1]} px, which have "
                f"{_answers(before)}, but those of {size[0]}x{size[1]} px have {_answers(now)}: its answers would be misread, so "
                "measure images of the size that it was trained on"
            )


def _answers(view: View) -> str:
    return f"{view.classes} views to tell apart" + (f" ({view.meaning})" if view.meaning else "")
