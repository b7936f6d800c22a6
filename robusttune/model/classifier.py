"""Where a model turns features into logits."""

from contextlib import ExitStack
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robusttune.model.borrowing import evaluating
from robusttune.model.features import Classifier, first_tensor, joined, logits_of, pooled

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class _Call(NamedTuple):
    """One run of a module; `inputs` are without data, and so is `output` where each channel has several places."""

    name: str
    module: nn.Module
    inputs: Tensor
    output: Tensor | None


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
    captured = [pooled(call.inputs, call.module) for call in calls if call.name in names]
    rows = next((len(features) for features in captured if len(features) != len(inputs)), None)
    if rows is not None:
        raise ValueError(
            f"what enters {names[0]!r} has {rows} rows for {len(inputs)} images: {_choices(calls, logits)}"
        )
    return Classifier(names, joined(captured).shape[1], logits.shape[1])


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
        if (
            _is_headless(model)
            or not flat
            or not any(_fits(call, output) and _yield([call.output], output) for call in calls)
        ):
            return Classifier((), pooled(output, model).shape[1], 0)
    return find_classifier(model, inputs, name)


def _is_headless(model: nn.Module) -> bool:
    own = _own(model)
    return getattr(model, "num_classes", None) == 0 or any(isinstance(layer, nn.Identity | None) for layer in own)


def _own(model: nn.Module) -> list[Any]:
    """What the model itself, as timm's do, gives as its classifier; nothing where it does not speak of one."""
    given: Any = model.get_classifier() if hasattr(model, "get_classifier") else []  # type: ignore[operator]
    return list(given) if isinstance(given, tuple | list) else [given]


def _own_names(model: nn.Module) -> tuple[str, ...]:
    if _is_headless(model):
        raise ValueError("the model has no classifier (num_classes=0): pretrain it, or give it one, before hardening")
    paths = {id(module): path for path, module in model.named_modules()}
    return tuple(paths[id(layer)] for layer in _own(model) if id(layer) in paths)


def _innermost(name: str, calls: list[_Call], logits: Tensor) -> list[str]:
    """The layer itself; for a list of layers, those; for a block that pools tokens or pixels, the last for the classes.

    Such a block does not tell where its input's channels stand.
    """
    call = next((call for call in calls if call.name == name), None)
    inside = [each.name for each in calls if each.name.startswith(f"{name}.") and _fits(each, logits)]
    if call is not None:
        return [name] if call.inputs.dim() == 2 or _weights(call.module) or not inside else inside[-1:]
    if not inside:
        raise ValueError(f"no layer {name!r} ran in the forward: {_choices(calls, logits)}")
    return inside


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
        given = first_tensor(arguments, keywords)
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
