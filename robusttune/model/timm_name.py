"""The name by which timm makes a model again, where it is sure."""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import timm
import torch
from torch import Tensor, nn

from robusttune.model.borrowing import evaluating, restored
from robusttune.model.devices import dtype_of
from robusttune.model.features import logits_of
from robusttune.run.randomness import own_randomness
from robusttune.types import Json

TOLERANCE = 1e-3  # share of the largest logit, on accelerators, whose libraries may choose another kernel each time
PREPARED = "_original_forward"  # accelerate's name for the forward that it has wrapped

logger = logging.getLogger("robusttune")


class Name(NamedTuple):
    """A name such as timm:resnet18, and the arguments beside channels and outputs."""

    model: str
    model_args: Mapping[str, Json] | None


def timm_name(model: nn.Module, inputs: Tensor, classes: int) -> Name | None:
    """Return the name by which timm makes this model; None for another model, or one that was made or changed otherwise.

    The model that timm makes by the architecture in `pretrained_cfg` counts as the same if it has the same layers, whose forward
    nobody has replaced, the same names and shapes of weights and, with the weights of this model, the same logits: to the last
    bit on the processor, nearly so on another device.

    Args:
        model: it does not change.
        inputs: the inputs of the model (N,C,H,W), on its device.
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
    if hasattr(model, PREPARED):
        logger.warning(
            "accelerate has wrapped the model's forward for mixed precision, so the run does not name its model: pass "
            "accelerator.unwrap_model(model, keep_fp32_wrapper=False), with precision= of this run"
        )
    return None


def _made(architecture: str, **arguments: object) -> nn.Module | None:
    """Make a model of timm with random weights; None if it does not take the arguments."""
    create: Callable[..., nn.Module] = timm.create_model
    try:
        with own_randomness(0):
            return create(architecture, pretrained=False, **arguments)
    except Exception:  # whatever a model of timm raises for arguments that it does not know
        return None


def _are_the_same(model: nn.Module, again: nn.Module, inputs: Tensor) -> bool:
    if _layers(model) != _layers(again) or repr(model) != repr(again) or _shapes(model) != _shapes(again):
        return False
    # Both compute with the very same tensors: other strides, types or alignments would round otherwise.
    again.to(dtype_of(model)).load_state_dict(model.state_dict(), assign=True)
    first, second = _logits(model, inputs), _logits(again.to(inputs.device), inputs)
    if inputs.device.type == "cpu":
        return torch.equal(first, second)
    return torch.allclose(first, second, rtol=0, atol=TOLERANCE * float(first.abs().max()))


def _layers(model: nn.Module) -> list[tuple[type, set[str]]]:
    """List the class of each module, and its forward methods that were replaced on the instance."""
    return [
        (
            type(module),
            {name for name, value in vars(module).items() if "forward" in name and _is_another(value, module, name)},
        )
        for module in model.modules()
    ]


def _is_another(value: object, module: nn.Module, name: str) -> bool:
    """Return True if a value replaces a method of a module; accelerate's unwrapping leaves the method itself as an attribute."""
    method = getattr(type(module), name, None)
    itself = getattr(value, "__self__", None) is module and getattr(value, "__func__", None) is method
    return callable(method) and not itself


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items() if isinstance(value, Tensor)}


def _logits(model: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad(), own_randomness(0), restored(model, weights=False), evaluating(model), _eager(model):
        return logits_of(model(inputs.clone())).float().cpu()


def _eager(model: nn.Module) -> AbstractContextManager[object]:
    """Return a context in which what `Module.compile` compiled is not, as that rounds otherwise."""
    compiled = any(module._compiled_call_impl is not None for module in model.modules())
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()
