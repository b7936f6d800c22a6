"""A model's logits and the features they are made of, from one forward pass."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from robusttune.modes import evaluating

SIDES = (224, 32, 28, 64, 96, 128, 256, 299, 384, 16, 8)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Classifier:
    """Where a model turns features into logits: the layers' names, the features' width, and the number of classes."""

    names: tuple[str, ...]
    width: int
    classes: int


class _Call(NamedTuple):
    name: str
    module: nn.Module
    inputs: Tensor
    output: Any


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

    Features of several classifier layers (distilled transformers) are averaged, and so are those of several places
    (tokens, pixels). The hooks that read them are gone when this returns. `weights` are used in the place of the model's.
    """
    captured: list[Tensor] = []
    thread = threading.get_ident()

    def read(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if threading.get_ident() == thread:
            captured.append(_pooled(arguments[0], module))

    with _hooked([model.get_submodule(name) for name in classifier.names], read):
        logits = logits_of(model(inputs) if weights is None else functional_call(model, weights, (inputs,)))
    if not captured:
        raise ValueError(f"the layer {classifier.names[0]!r} was not called in the forward: pass another classifier=")
    return logits, captured[0] if len(captured) == 1 else torch.stack(captured).mean(0)


def find_classifier(model: nn.Module, inputs: Tensor, name: str | None = None) -> Classifier:
    """The layer that turns features into logits, found by running the model once on `inputs` (N,C,H,W), in eval mode.

    Args:
        name: the layer as in `model.named_modules()`, to be used instead of looking for it.

    Raises:
        ValueError: no classifier, no such layer, or several candidates, which are named.
    """
    calls, output = _calls(model, inputs)
    logits = logits_of(output)
    names = (name,) if name else _timm_names(model)
    if names is None:
        names = (_last_layer(calls, logits),)
    inputs_of = {call.name: call for call in calls}
    missing = [each for each in names if each not in inputs_of]
    if missing:
        raise ValueError(f"no layer {missing[0]!r} ran in the forward: {_choices(_candidates(calls, logits))}")
    first = inputs_of[names[0]]
    return Classifier(names, _pooled(first.inputs, first.module).shape[1], logits.shape[1])


def _timm_names(model: nn.Module) -> tuple[str, ...] | None:
    """What the model itself names as its classifier; None where it does not speak of one."""
    if not hasattr(model, "get_classifier"):
        return None
    given: Any = model.get_classifier()  # type: ignore[operator]
    layers = list(given) if isinstance(given, tuple | list | nn.ModuleList) else [given]
    if any(layer is None or isinstance(layer, nn.Identity) for layer in layers):
        raise ValueError("the model has no classifier (num_classes=0): pretrain it, or give it one, before hardening")
    paths = {id(module): path for path, module in model.named_modules()}
    return tuple(paths[id(layer)] for layer in layers if id(layer) in paths) or None


def _last_layer(calls: list[_Call], logits: Tensor) -> str:
    """The layer whose output is the logits; else the last one to run, if it has as many outputs as there are classes."""
    candidates = _candidates(calls, logits)
    exact = [call for call in candidates if _same(call.output, logits)]
    if exact:
        return exact[-1].name
    layers = [call for call in calls if _is_layer(call.module)]
    if candidates and layers and candidates[-1] is layers[-1]:
        return candidates[-1].name
    raise ValueError(f"cannot tell which layer yields the logits: {_choices(candidates)}")


def _candidates(calls: list[_Call], logits: Tensor) -> list[_Call]:
    """The layers with parameters of their own that have one output for each class."""
    return [call for call in calls if _is_layer(call.module) and _outputs(call) == logits.shape[1]]


def _choices(candidates: list[_Call]) -> str:
    listed = ", ".join(repr(call.name) for call in candidates) or "none found, so any name of model.named_modules()"
    return f"pass classifier= with its name (candidates: {listed})"


def _calls(model: nn.Module, inputs: Tensor) -> tuple[list[_Call], Any]:
    """Every module that ran with a tensor as its input, in the order in which they finished, and the model's output."""
    calls: list[_Call] = []
    paths = {id(module): path for path, module in model.named_modules()}

    def read(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        if arguments and isinstance(arguments[0], Tensor):
            calls.append(_Call(paths[id(module)], module, arguments[0], output))

    handles = [module.register_forward_hook(read) for module in model.modules() if module is not model]
    try:
        with evaluating(model), torch.no_grad():
            return calls, model(inputs)
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _hooked(layers: list[nn.Module], read: Any) -> Iterator[None]:
    handles = [layer.register_forward_pre_hook(read) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is_layer(module: nn.Module) -> bool:
    return not list(module.children()) and isinstance(getattr(module, "weight", None), Tensor)


def _outputs(call: _Call) -> int:
    if not isinstance(call.output, Tensor) or call.output.dim() < 2:
        return 0
    return call.output.shape[1] if isinstance(call.module, CONVOLUTIONS) else call.output.shape[-1]


def _same(output: Any, logits: Tensor) -> bool:
    return (
        isinstance(output, Tensor)
        and output.numel() == logits.numel()
        and torch.equal(output.flatten(), logits.flatten())
    )


def _pooled(features: Tensor, layer: nn.Module) -> Tensor:
    """One row of features per image: places are averaged, channels stay."""
    if features.dim() == 2:
        return features
    if _channels_second(features, layer):
        return features.flatten(2).mean(2)
    return features.flatten(1, -2).mean(1)


def _channels_second(features: Tensor, layer: nn.Module) -> bool:
    """Whether channels are dimension 1, as for a convolution, and not the last, as for a linear layer."""
    if isinstance(layer, nn.Linear) or features.dim() == 3:
        return False
    weight = getattr(layer, "weight", None)
    return weight is None or weight.dim() > 2 or weight.shape[-1] == features.shape[1]


def _described(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    if isinstance(output, dict):
        return f"a dict with the keys {', '.join(map(str, output))}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {len(output)} ({_described(output[0]) if output else 'empty'} first)"
    return f"a {type(output).__name__}"


def sample_inputs(model: nn.Module) -> Iterator[Tensor]:
    """Made-up inputs (2,C,H,W) to look at a model with when no image is at hand, the likeliest size first."""
    parameter = next(model.parameters(), torch.empty(0))
    config = getattr(model, "pretrained_cfg", None) or {}
    size = (config.get("input_size") if isinstance(config, dict) else None) or ()
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    channels = [first.in_channels] if first is not None else [3, 1]
    sides = [*_fixed_sides(model), *(tuple(size[-2:]),) * bool(size), *((side, side) for side in SIDES)]
    for side in sides:
        for channel in channels:
            made_up = torch.rand(2, channel, *side, generator=torch.Generator().manual_seed(0))
            yield made_up.to(parameter.device, parameter.dtype)


def patch_size_of(model: nn.Module) -> int | None:
    """The side of a vision transformer's patches in pixels; None for other models."""
    for module in model.modules():
        patch = getattr(module, "patch_size", None)
        if isinstance(patch, tuple | list) and patch:
            patch = patch[0]
        if isinstance(patch, int) and patch > 1:
            return patch
    return None


def _fixed_sides(model: nn.Module) -> list[tuple[int, int]]:
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    return [(size[-2], size[-1])] if isinstance(size, tuple | list) else []
