"""A user's own criterion in the place of an objective's cross-entropy."""

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from robusttune import plugins
from robusttune.training.settings import Criterion, ObjectiveLike


def with_criterion(objective: ObjectiveLike, criterion: Criterion | None, device: torch.device) -> ObjectiveLike:
    """The objective with the user's criterion, one loss per image, in the place of its cross-entropy; as it is for None.

    Raises:
        ValueError: the objective has no cross-entropy to be replaced.
    """
    if criterion is None:
        return objective
    instance: Any = plugins.instance("objectives", objective)
    if not hasattr(instance, "criterion"):
        raise ValueError(
            f"criterion= was given, but the objective {type(instance).__name__} takes none: leave one of them out"
        )
    if isinstance(criterion, nn.Module):
        criterion = copy.deepcopy(criterion).to(device)
        if hasattr(criterion, "reduction"):
            criterion.reduction = "none"  # type: ignore[assignment]
    return replace(instance, criterion=criterion)
