"""Pretext heads for measuring."""

import copy
from typing import TypeAlias

from torch import nn

from robusttune.model.devices import device_of, dtype_of
from robusttune.tasks._heads import Heads, load_heads
from robusttune.types import PathLike

HeadsLike: TypeAlias = nn.Module | PathLike


def heads_for(heads: HeadsLike, model: nn.Module) -> Heads:
    """Return a copy of pretext heads in eval mode, on the model's device and in its dtype.

    Args:
        heads: Heads, a RobustLoss, or the folder of a run.
        model: the model whose features they read.
    """
    loaded = heads if isinstance(heads, Heads) else getattr(heads, "heads", None) or load_heads(heads, model)
    # A copy, as the user may train the original.
    return copy.deepcopy(loaded).to(device_of(model), dtype_of(model)).eval()
