"""A model's logits and the features they are made of, from one forward pass."""

import threading
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from robusttune.modes import evaluating

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Classifier:
    """Where a model turns features into logits: the layers' names, the features' width, and the number of classes."""

    names: tuple[str, ...]
    width: int
    classes: int


class _Call(NamedTuple):
    """One run of a module; `inputs` are without data, and so is `output` where each channel has several places."""

    name: str
    module: nn.Module
    inputs: Tensor
    output: Tensor | None


def logits_of(output: Any) -> Tensor:
    """The logits (N,K) in what a model returned: a tensor, a tuple or named tuple led by one, or an object with `.logits`.

    Raises:
        ValueError: the output is of a detection, segmentation, or other model without one row of logits per image.
    """
    found = output
    if isinstance(output, dict):
        found = output.get("logits")
    elif hasattr(output, "logits"):
        found = output.logits
    elif isinstance(output, tuple | list) and output:
        found = output[0]
    if isinstance(found, Tensor) and found.dim() == 2:
        return found
    raise ValueError(
        f"the model returned {_described(output)}, but logits of shape (N, classes) are needed: detection, "
        "segmentation and regression models cannot be hardened; wrap the model so that it returns class logits"
    )


def forward(
    model: nn.Module, classifier: Classifier, inputs: Tensor, weights: dict[str, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """The model's logits (N,K) and, from the same forward, the pooled features (N,D) that enter its classifier.

    Several places (tokens, pixels) are averaged, and so are the features of several classifier layers (distilled
    transformers); where these differ in width, they stand side by side. `weights` are used in place of the model's.
    """
    captured: list[Tensor] = []
    thread = threading.get_ident()

    def read(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        features = _first_tensor(arguments, keywords)
        if features is not None and threading.get_ident() == thread:
            captured.append(_pooled(features, module))

    with ExitStack() as stack:
        for layer in map(model.get_submodule, classifier.names):
            stack.callback(layer.register_forward_pre_hook(read, with_kwargs=True).remove)
        output = model(inputs) if weights is None else functional_call(model, weights, (inputs,))
    if not classifier.names:
        features = _pooled(output[0] if isinstance(output, tuple | list) else output, model)
        return features, features
    logits = logits_of(output)
    if not captured:
        raise ValueError(f"the layer {classifier.names[0]!r} was not called in the forward: pass another classifier=")
    return logits, _joined(captured)


def find_classifier(model: nn.Module, inputs: Tensor, name: str | None = None) -> Classifier:
    """The layer that turns features into logits, found by running the model once on `inputs` (N,C,H,W), in eval mode.

    Args:
        name: the layer as in `model.named_modules()`, to be used instead of looking for it.

    Raises:
        ValueError: no classifier, a single class, no such layer, or several candidates, which are named.
    """
    names = (name,) if name else _own_names(model)
    calls, output = _calls(model, inputs)
    logits = logits_of(output)
    if len(logits) != len(inputs) or logits.shape[1] < 2:
        raise ValueError(
            f"the model returned logits of shape {tuple(logits.shape)} for {len(inputs)} images, but one row for each "
            "image and at least two classes are needed: give a yes-or-no model two outputs"
        )
    names = names or _last_layers(calls, logits)
    names = tuple(layer for each in names for layer in _innermost(each, calls, logits))
    captured = [_pooled(call.inputs, call.module) for call in calls if call.name in names]
    rows = next((len(features) for features in captured if len(features) != len(inputs)), None)
    if rows is not None:
        raise ValueError(
            f"what enters {names[0]!r} has {rows} rows for {len(inputs)} images: {_choices(calls, logits)}"
        )
    return Classifier(names, _joined(captured).shape[1], logits.shape[1])


def find_backbone(model: nn.Module, inputs: Tensor, name: str | None = None) -> Classifier:
    """The model's classifier, for its features to be read; of a model without one, the output itself is the features.

    A last linear layer that yields the output counts as the classifier.

    Raises:
        ValueError: as `find_classifier`, for a model that has one.
    """
    if name is None:
        calls, output = _calls(model, inputs)
        output = output[0] if isinstance(output, tuple | list) else output
        flat = isinstance(output, Tensor) and output.dim() == 2
        if _is_headless(model) or not flat or not any(_fits(call, output) and _same(call, output) for call in calls):
            return Classifier((), _pooled(output, model).shape[1], 0)
    return find_classifier(model, inputs, name)


def _is_headless(model: nn.Module) -> bool:
    given: Any = model.get_classifier() if hasattr(model, "get_classifier") else []  # type: ignore[operator]
    layers = list(given) if isinstance(given, tuple | list) else [given]
    return getattr(model, "num_classes", None) == 0 or any(isinstance(layer, nn.Identity | None) for layer in layers)


def _same(call: _Call, output: Tensor) -> bool:
    return _yield([call.output], output)


def _own_names(model: nn.Module) -> tuple[str, ...]:
    """What the model itself, as timm's do, names as its classifier; nothing where it does not speak of one."""
    given: Any = model.get_classifier() if hasattr(model, "get_classifier") else []  # type: ignore[operator]
    layers = list(given) if isinstance(given, tuple | list) else [given]
    if _is_headless(model):
        raise ValueError("the model has no classifier (num_classes=0): pretrain it, or give it one, before hardening")
    paths = {id(module): path for path, module in model.named_modules()}
    return tuple(paths[id(layer)] for layer in layers if id(layer) in paths)


def _innermost(name: str, calls: list[_Call], logits: Tensor) -> list[str]:
    """The layer itself; for a list of layers, those; for a block that pools tokens or pixels, the last for the classes.

    Such a block does not tell where its input's channels stand.
    """
    call = next((call for call in calls if call.name == name), None)
    inside = [each.name for each in calls if each.name.startswith(f"{name}.") and _fits(each, logits)]
    if call is None and not inside:
        raise ValueError(f"no layer {name!r} ran in the forward: {_choices(calls, logits)}")
    if call is None:
        return inside
    return [name] if call.inputs.dim() == 2 or _weights(call.module) or not inside else inside[-1:]


def _last_layers(calls: list[_Call], logits: Tensor) -> tuple[str, ...]:
    """The layer whose output is the logits; else the last to run, if its outputs are as many as the classes.

    Several such layers at the end are taken together if the logits are their mean or their sum.
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
    fitting = dict.fromkeys(call.name for call in calls if _fits(call, logits))
    if fitting:
        return f"pass classifier= with its name (candidates: {', '.join(map(repr, fitting))})"
    last = ", ".join(repr(call.name) for call in calls[-3:]) or "none"
    return (
        "call the classifier as a layer (F.linear with its weight goes unseen), or pass classifier= with the name of "
        f"the layer that the features enter (the last to run: {last})"
    )


def _calls(model: nn.Module, inputs: Tensor) -> tuple[list[_Call], Any]:
    """Every module that ran on a tensor, in the order in which they finished, and the model's output."""
    calls: list[_Call] = []
    paths = {id(module): path for path, module in model.named_modules()}

    def read(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        given = _first_tensor(arguments, keywords)
        if given is not None:
            # All activations of a large model at once would not fit: only those that could be logits are kept.
            shape = torch.empty_like(given, device="meta")
            calls.append(_Call(paths[id(module)], module, shape, _kept(output, module)))

    with ExitStack() as stack, evaluating(model), torch.no_grad():
        for path, module in model.named_modules():
            if path:
                stack.callback(module.register_forward_hook(read, with_kwargs=True).remove)
        return calls, model(inputs)


def _kept(output: Any, module: nn.Module) -> Tensor | None:
    if not isinstance(output, Tensor) or output.dim() < 2:
        return None
    channels = output.shape[_channel(module)]
    return output if output.numel() == len(output) * channels else torch.empty_like(output, device="meta")


def _first_tensor(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor | None:
    return next((each for each in (*arguments, *keywords.values()) if isinstance(each, Tensor)), None)


def _weights(module: nn.Module) -> list[Tensor]:
    """A layer's own weights; of a module with layers inside, only the weight that it shows as its own (adapters do)."""
    shown = getattr(module, "weight", None)
    if isinstance(shown, Tensor):
        return [shown]
    return [] if list(module.children()) else list(module.parameters(recurse=False))


def _fits(call: _Call, logits: Tensor) -> bool:
    """Whether this is a layer that mixes channels, with one output for each class."""
    wide = call.output is not None and call.output.shape[_channel(call.module)] == logits.shape[1]
    return wide and any(weight.dim() >= 2 for weight in _weights(call.module))


def _channel(layer: nn.Module) -> int:
    return 1 if isinstance(layer, CONVOLUTIONS) else -1


def _yield(outputs: list[Tensor | None], logits: Tensor) -> bool:
    """Whether the logits are the sum or the mean of these outputs, or the only one itself."""
    flat = [output.flatten().to(logits) for output in outputs if output is not None and not output.is_meta]
    if not flat or len(flat) < len(outputs) or any(len(each) != logits.numel() for each in flat):
        return False
    total = torch.stack(flat).sum(0)
    return any(torch.allclose(each, logits.flatten()) for each in (total, total / len(flat)))


def _joined(captured: list[Tensor]) -> Tensor:
    if len({features.shape for features in captured}) > 1:
        return torch.cat(captured, 1)
    return captured[0] if len(captured) == 1 else torch.stack(captured).mean(0)


def _pooled(features: Tensor, layer: nn.Module) -> Tensor:
    """One row of features per image: places are averaged, channels stay."""
    if features.dim() == 2:
        return features
    if _channels_second(features, layer):
        return features.flatten(2).mean(2)
    return features.flatten(1, -2).mean(1)


def _channels_second(features: Tensor, layer: nn.Module) -> bool:
    """Whether channels are dimension 1, as for a convolution, and not the last, as for a linear layer."""
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor):
        return features.dim() > 3
    if weight.dim() == 1:  # a norm or a scale
        return features.shape[1] in weight.shape
    return weight.dim() > 2 or features.shape[-1] not in weight.shape


def _described(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    if isinstance(output, dict):
        return f"a dict with the keys {', '.join(map(str, output))}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {len(output)} ({_described(output[0]) if output else 'empty'} first)"
    return f"a {type(output).__name__}"
