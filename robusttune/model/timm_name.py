"""The name by which timm makes a model again, where it is sure."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import timm
import torch
from torch import Tensor, nn

from robusttune.model.borrowing import evaluating, restored
from robusttune.model.features import logits_of
from robusttune.run.randomness import own_randomness
from robusttune.types import Json

TOLERANCE = 1e-2  # of the largest logit: other devices and memory formats round otherwise


class Name(NamedTuple):
    """A name such as timm:resnet18, and the arguments beside channels and outputs."""

    model: str
    model_args: Mapping[str, Json] | None


def timm_name(model: nn.Module, inputs: Tensor, classes: int) -> Name | None:
    """Return the name by which timm makes this model; None for another model, or one that was made or changed otherwise.

    The model that timm makes by the architecture in `pretrained_cfg` counts as the same if it has the same layers, the same
    names and shapes of weights and, with the weights of this model, the same logits.

    Args:
        model: it does not change.
        inputs: of the model (N,C,H,W), on its device.
        classes: outputs of the model.
    """
    config = getattr(model, "pretrained_cfg", None)
    architecture = config.get("architecture") if isinstance(config, Mapping) else None
    if not isinstance(architecture, str) or not timm.is_model(architecture):
        return None
    for arguments in (None, {"img_size": list(inputs.shape[2:])}):
        again = _made(architecture, in_chans=inputs.shape[1], num_classes=classes, **(arguments or {}))
        if again is not None and _are_the_same(model, again, inputs[:2]):
            return Name(f"timm:{architecture}", arguments)
    return None


def _made(architecture: str, **arguments: object) -> nn.Module | None:
    """Make a model of timm with random weights; None where it does not take the arguments."""
    create: Callable[..., nn.Module] = timm.create_model
    try:
        with own_randomness(0):
            return create(architecture, pretrained=False, **arguments)
    except Exception:  # whatever a model of timm raises for arguments that it does not know
        return None


def _are_the_same(model: nn.Module, again: nn.Module, inputs: Tensor) -> bool:
    if type(model) is not type(again) or repr(model) != repr(again) or _shapes(model) != _shapes(again):
        return False
    again.load_state_dict(model.state_dict())
    first, second = _logits(model, inputs), _logits(again, inputs.float().cpu())
    return torch.allclose(first, second, rtol=0, atol=TOLERANCE * float(first.abs().max()))


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items() if isinstance(value, Tensor)}


def _logits(model: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad(), own_randomness(0), restored(model, weights=False), evaluating(model):
        return logits_of(model(inputs.clone())).float().cpu()
