"""A model's logits and the features they are made of, from one forward pass."""

import threading
import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


@dataclass(frozen=True)
class Classifier:
    """Where a model turns features into logits: the layers' names, the features' width, and the number of classes."""

    names: tuple[str, ...]
    width: int
    classes: int


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
        features = first_tensor(arguments, keywords)
        if features is not None and threading.get_ident() == thread:
            captured.append(pooled(features, module))

    with ExitStack() as stack:
        for layer in map(model.get_submodule, classifier.names):
            stack.callback(layer.register_forward_pre_hook(read, with_kwargs=True).remove)
        output = model(inputs) if weights is None else functional_call(model, weights, (inputs,))
    return _found(model, classifier, output, captured)


def _found(model: nn.Module, classifier: Classifier, output: Any, captured: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The logits and the features, of what a model returned and what was captured on the way."""
    if not classifier.names:
        features = pooled(output[0] if isinstance(output, tuple | list) else output, model)
        return features, features
    logits = logits_of(output)
    if not captured:
        raise ValueError(f"the layer {classifier.names[0]!r} was not called in the forward: pass another classifier=")
    return logits, joined(captured)


class CompiledForward:
    """`forward` as one compiled function, for as long as the hooks that it registers stay.

    Only this function is compiled: the user's module is left without a compiled call, and called as ever by others.
    """

    def __init__(self, model: nn.Module, classifier: Classifier) -> None:
        self.reading = False  # others may call the model meanwhile, and what they compute must not be held
        self.captured: list[Tensor] = []

        def read(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            features = first_tensor(arguments, keywords)
            if self.reading and features is not None:
                self.captured.append(pooled(features, module))

        def whole(inputs: Tensor) -> tuple[Tensor, Tensor]:
            return _found(model, classifier, model(inputs), self.captured)

        layers = map(model.get_submodule, classifier.names)
        self.handles = [layer.register_forward_pre_hook(read, with_kwargs=True) for layer in layers]
        self.run = torch.compile(whole)

    def __call__(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The logits (N,K) and the features (N,D) of inputs (N,C,H,W)."""
        with warnings.catch_warnings():
            # torch.compile looks at the `.grad` of every tensor it meets, images under attack too.
            warnings.filterwarnings("ignore", message=r"The \.grad attribute of a Tensor that is not a leaf")
            self.reading = True
            # From the first call on: else the second size of batch would be compiled for anew, and a resumed run, which
            # has seen other sizes before, would round otherwise.
            torch._dynamo.maybe_mark_dynamic(inputs, 0)
            try:
                found: tuple[Tensor, Tensor] = self.run(inputs)
            finally:
                self.reading = False
                self.captured.clear()
        return found

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self.handles:
            handle.remove()


def first_tensor(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor | None:
    """What a layer was called on; None where that is no tensor."""
    for each in (*arguments, *keywords.values()):  # torch 2.6 compiles no next() with a default
        if isinstance(each, Tensor):
            return each
    return None


def joined(captured: list[Tensor]) -> Tensor:
    """One row of features per image, of those (N,D) of several classifiers."""
    # Of whole shapes, comparing would bind a compiled pass to one size of batch.
    if len({features.shape[-1] for features in captured}) > 1:
        return torch.cat(captured, 1)
    return captured[0] if len(captured) == 1 else torch.stack(captured).mean(0)


def pooled(features: Tensor, layer: nn.Module) -> Tensor:
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
