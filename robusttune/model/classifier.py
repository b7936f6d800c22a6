"""Search for the layer that turns a model's features into logits."""

from contextlib import ExitStack
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robusttune.model.borrowing import evaluating
from robusttune.model.features import Classifier, first_tensor, joined, logits_of, pooled
from robusttune.types import check_kinds

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class _Call(NamedTuple):
    """One call of a module; `inputs` are on the meta device, and so is `output` where channels have several pixels or tokens."""

    name: str
    module: nn.Module
    inputs: Tensor
    output: Tensor | None


def find_classifier(model: nn.Module, inputs: Tensor, name: str | None = None) -> Classifier:
    """Find the layer that turns features into logits, by one forward of the model in eval mode.

    Args:
        model: in any mode, which is kept.
        inputs: (N,C,H,W).
        name: the layer as in `model.named_modules()`, which ends the search.

    Raises:
        ValueError: no classifier, a single class, no such layer, or several candidates, which the message names.
    """
    check_kinds({"classifier": name})
    names = (name,) if name else _names_by_model(model)
    calls, output = _calls(model, inputs)
    logits = logits_of(output)
    if len(logits) != len(inputs) or logits.shape[1] < 2:
        raise ValueError(
            f"the model returned logits of shape {tuple(logits.shape)} for {len(inputs)} images, but one row for each "
            "image and at least two classes are needed: give a yes-or-no model two outputs"
        )
    names = names or _last_layers(calls, logits)
    names = tuple(layer for name in names for layer in _innermost(name, calls, logits))
    captured = [pooled(call.inputs, call.module) for call in calls if call.name in names]
    rows = next((len(features) for features in captured if len(features) != len(inputs)), None)
    if rows is not None:
        raise ValueError(
            f"what enters {names[0]!r} has {rows} rows for {len(inputs)} images: {_choices(calls, logits)}"
        )
    return Classifier(names, joined(captured).shape[1], logits.shape[1])


def find_backbone(model: nn.Module, inputs: Tensor, name: str | None = None) -> Classifier:
    """Find the layer that reads the model's features; for a model without a classifier, its output is the features.

    A last linear layer whose output is the model's output counts as the classifier.

    Raises:
        ValueError: as `find_classifier`, for a model that has one.
    """
    if name is None:
        calls, output = _calls(model, inputs)
        output = output[0] if isinstance(output, tuple | list) else output
        flat = isinstance(output, Tensor) and output.dim() == 2
        if (
            _is_headless(model)
            or not flat
            or not any(_fits(call, output) and _yield([call.output], output) for call in calls)
        ):
            return Classifier((), pooled(output, model).shape[1], 0)
    return find_classifier(model, inputs, name)


def _is_headless(model: nn.Module) -> bool:
    """Return True if the model, as timm's can, says that it has no classifier."""
    layers = _named_by_model(model)
    return getattr(model, "num_classes", None) == 0 or any(isinstance(layer, nn.Identity | None) for layer in layers)


def _named_by_model(model: nn.Module) -> list[object]:
    """Return the layers that the model's `get_classifier`, a method of timm's models, returns; none without it."""
    layers: object = model.get_classifier() if hasattr(model, "get_classifier") else []  # type: ignore[operator]
    return list(layers) if isinstance(layers, tuple | list) else [layers]


def _names_by_model(model: nn.Module) -> tuple[str, ...]:
    if _is_headless(model):
        raise ValueError("the model has no classifier (num_classes=0): pretrain it, or give it one, before hardening")
    paths = {id(module): path for path, module in model.named_modules()}
    return tuple(paths[id(layer)] for layer in _named_by_model(model) if id(layer) in paths)


def _innermost(name: str, calls: list[_Call], logits: Tensor) -> list[str]:
    """Return the layers inside `name` that compute logits: of a list of layers, those that fit; of a layer, itself.

    Of a block that pools tokens or pixels it is the last fitting layer, as the block does not show which dimension of its
    input holds the channels.
    """
    call = next((call for call in calls if call.name == name), None)
    inside = [inner.name for inner in calls if inner.name.startswith(f"{name}.") and _fits(inner, logits)]
    if call is not None:
        return [name] if call.inputs.dim() == 2 or _weights(call.module) or not inside else inside[-1:]
    if not inside:
        raise ValueError(f"no layer {name!r} ran in the forward: {_choices(calls, logits)}")
    return inside


def _last_layers(calls: list[_Call], logits: Tensor) -> tuple[str, ...]:
    """Return the layer whose output is the logits; without one, the last layer called, if it has one output per class.

    Several such layers at the end are returned together if the logits are their mean or their sum.
    """
    exact = [call.name for call in calls if _fits(call, logits) and _yield([call.output], logits)]
    if exact:
        return (exact[0],)
    layers = [call for call in calls if _weights(call.module)]
    ending = list(takewhile(lambda call: _fits(call, logits), reversed(layers)))[::-1]
    names = tuple(dict.fromkeys(call.name for call in ending))
    if len(names) == 1 or _yield([call.output for call in ending], logits):
        return names
    raise ValueError(f"cannot tell which layer yields the logits: {_choices(calls, logits)}")


def _choices(calls: list[_Call], logits: Tensor) -> str:
    """Return the end of an error text: the names that `classifier=` may have."""
    fitting = dict.fromkeys(call.name for call in calls if _fits(call, logits))
    if fitting:
        return f"pass classifier= with its name (candidates: {', '.join(map(repr, fitting))})"
    last = ", ".join(repr(call.name) for call in calls[-3:]) or "none"
    return (
        "call the classifier as a layer (F.linear with its weight goes unseen), or pass classifier= with the name of "
        f"the layer that the features enter (the last to run: {last})"
    )


def _calls(model: nn.Module, inputs: Tensor) -> tuple[list[_Call], Any]:
    """Return the calls of all modules with a tensor, in the order in which they ended, and the model's output."""
    calls: list[_Call] = []
    paths = {id(module): path for path, module in model.named_modules()}

    def read(module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object], output: object) -> None:
        argument = first_tensor(arguments, keywords)
        if argument is not None:
            # All activations of a large model would not fit in memory: only those that could be logits are kept.
            shape = torch.empty_like(argument, device="meta")
            calls.append(_Call(paths[id(module)], module, shape, _kept(output, module)))

    with ExitStack() as stack, evaluating(model), torch.no_grad():
        for path, module in model.named_modules():
            if path and not isinstance(module, torch.jit.ScriptModule):
                stack.callback(module.register_forward_hook(read, with_kwargs=True).remove)
        return calls, model(inputs.clone())  # which some models write into


def _kept(output: object, module: nn.Module) -> Tensor | None:
    """Return a layer's output, without its data if it cannot be logits; None if it is no tensor with channels."""
    if not isinstance(output, Tensor) or output.dim() < 2:
        return None
    channels = output.shape[_channel(module)]
    return output if output.numel() == len(output) * channels else torch.empty_like(output, device="meta")


def _weights(module: nn.Module) -> list[Tensor]:
    """Return a layer's weights; of a module with layers inside, only its attribute `weight`, which adapters have."""
    shown = getattr(module, "weight", None)
    if isinstance(shown, Tensor):
        return [shown]
    return [] if list(module.children()) else list(module.parameters(recurse=False))


def _fits(call: _Call, logits: Tensor) -> bool:
    """Return True if the call is of a layer that mixes channels, with one output per class."""
    wide = call.output is not None and call.output.shape[_channel(call.module)] == logits.shape[1]
    return wide and any(weight.dim() >= 2 for weight in _weights(call.module))


def _channel(layer: nn.Module) -> int:
    return 1 if isinstance(layer, CONVOLUTIONS) else -1


def _yield(outputs: list[Tensor | None], logits: Tensor) -> bool:
    """Return True if the logits are the only output, or the sum or the mean of several."""
    flat = [output.flatten().to(logits) for output in outputs if output is not None and not output.is_meta]
    if not flat or len(flat) < len(outputs) or any(len(output) != logits.numel() for output in flat):
        return False
    total = torch.stack(flat).sum(0)
    return any(torch.allclose(combined, logits.flatten()) for combined in (total, total / len(flat)))
