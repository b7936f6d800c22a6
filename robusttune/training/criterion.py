"""Replacement of an objective's cross-entropy by a user's criterion."""

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from robusttune import plugins
from robusttune.model.devices import check_module
from robusttune.objectives import Objective, ObjectiveLike
from robusttune.training.settings import Criterion


def with_criterion(
    objective: ObjectiveLike | None, criterion: Criterion | None, device: torch.device
) -> ObjectiveLike | None:
    """Replace the cross-entropy of an objective by the user's criterion, with one loss per image; None changes nothing.

    Raises:
        ValueError: the objective has no cross-entropy to be replaced, or the criterion does not take logits.
    """
    if criterion is None:
        return objective
    instance: Any = None if objective is None else plugins.instance("objectives", objective)
    if not hasattr(instance, "criterion"):
        raise ValueError(
            f"criterion= was passed, but the objective {type(instance).__name__} takes none: leave one of them out"
        )
    if isinstance(criterion, nn.KLDivLoss | nn.NLLLoss | nn.BCELoss):
        raise ValueError(
            f"criterion={type(criterion).__name__} takes probabilities or their logarithms, but it would get logits: pass "
            "torch.nn.CrossEntropyLoss(), which takes logits, and soft labels too"
        )
    if isinstance(criterion, nn.Module):
        check_module(criterion, "criterion")
        criterion = copy.deepcopy(criterion).to(device)
        if hasattr(criterion, "reduction"):
            criterion.reduction = "none"  # type: ignore[assignment]
    replaced: Objective = replace(instance, criterion=criterion)
    return replaced


def check_criterion(criterion: Criterion, labels: Tensor, classes: int, device: torch.device) -> None:
    """Raise a ValueError unless a criterion can be computed from logits and labels like these, (N,) or soft (N,K).

    It is tried on made-up logits of another number of images than classes: where both are equal, a criterion for soft
    labels takes class numbers, too, and returns wrong losses.
    """
    count = 3 if classes == 2 else 2
    logits = torch.randn(count, classes, generator=torch.Generator().manual_seed(0)).to(device)
    targets = labels[torch.arange(count) % len(labels)].to(device)
    name = getattr(criterion, "__name__", type(criterion).__name__)
    kind = "soft labels (N, classes)" if labels.dim() == 2 else "class numbers (N,)"
    try:
        with torch.no_grad():
            losses = criterion(logits, targets)
    except Exception as error:  # whatever a user's function raises
        raise ValueError(
            f"criterion={name} cannot be computed from logits (N, classes) and this loader's labels, which are {kind}: "
            f"{error}"
        ) from error
    shape = tuple(losses.shape) if isinstance(losses, Tensor) else None
    if shape not in ((), (count,), (count, classes)):
        got = type(losses).__name__ if shape is None else f"a tensor of shape {shape}"
        raise ValueError(
            f"criterion={name} returned {got} for logits {(count, classes)} and labels that are {kind}, but one loss for "
            f"each image, ({count},), is needed"
        )
