"""A user's criterion in the place of an objective's cross-entropy."""

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from robusttune import plugins
from robusttune.objectives import Objective, ObjectiveLike
from robusttune.training.settings import Criterion


def with_criterion(
    objective: ObjectiveLike | None, criterion: Criterion | None, device: torch.device
) -> ObjectiveLike | None:
    """Replace the cross-entropy of an objective by the user's criterion, with one loss per image; None changes nothing.

    Raises:
        ValueError: the objective has no cross-entropy to be replaced.
    """
    if criterion is None:
        return objective
    instance: Any = None if objective is None else plugins.instance("objectives", objective)
    if not hasattr(instance, "criterion"):
        raise ValueError(
            f"criterion= was passed, but the objective {type(instance).__name__} takes none: leave one of them out"
        )
    if isinstance(criterion, nn.Module):
        criterion = copy.deepcopy(criterion).to(device)
        if hasattr(criterion, "reduction"):
            criterion.reduction = "none"  # type: ignore[assignment]
    replaced: Objective = replace(instance, criterion=criterion)
    return replaced
