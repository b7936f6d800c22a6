"""Logits of a model and the features that its classifier reads, from one forward pass."""

import threading
import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from robusttune.data.pixels import Pixels
from robusttune.model.borrowing import evaluating, restored
from robusttune.model.devices import device_of, dtype_of


@dataclass(frozen=True)
class Classifier:
    """The layers that turn a model's features into logits.

    Attributes:
        names: the names of the layers, as in `model.named_modules()`; none for a model that returns features.
        width: the width of the features.
        classes: number of classes; 0 for a model that returns features.
    """

    names: tuple[str, ...]
    width: int
    classes: int


def predicted_classes(model: nn.Module, space: Pixels, images: Tensor) -> Tensor:
    """Return the classes (N,), on the CPU, that a model predicts in eval mode, on its device; the model stays as it was.

    Args:
        space: the maps from the loader's images to the model's input, on the model's device.
        images: (N,C,H,W), as the loader yields them.
    """
    return predicted_logits(model, space, images).argmax(1)


def predicted_logits(model: nn.Module, space: Pixels, images: Tensor) -> Tensor:
    """Return the logits (N,K), on the CPU, that a model predicts in eval mode; see `predicted_classes`."""
    device = device_of(model)
    with torch.no_grad(), restored(model, weights=False), evaluating(model):
        inputs = space.inputs(space.pixels(images.to(device))).to(dtype_of(model))
        return logits_of(model(inputs)).cpu()


def logits_of(output: object) -> Tensor:
    """Return the logits (N,K) in the output of a model.

    Args:
        output: a tensor, a tuple or list that begins with one, a dict with the key "logits", or an object with `.logits`.

    Raises:
        ValueError: the output has no row of logits per image, such as that of a detection or segmentation model.
    """
    logits = output
    if isinstance(output, dict):
        logits = output.get("logits")
    elif hasattr(output, "logits"):
        logits = output.logits
    elif isinstance(output, tuple | list) and output:
        logits = output[0]
    if isinstance(logits, Tensor) and logits.dim() == 2:
        return logits
    raise ValueError(
        f"the model returned {_described(output)}, but logits of shape (N, classes) are needed: detection, "
        "segmentation and regression models cannot be hardened; wrap the model so that it returns class logits"
    )


def forward(
    model: nn.Module, classifier: Classifier, inputs: Tensor, weights: dict[str, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Return the model's logits (N,K) and, from the same forward, the pooled features (N,D) that enter its classifier.

    Features are averaged over tokens or pixels. Of a model with several classifier layers (distilled transformers) they
    are averaged over the layers, or concatenated if their widths differ.

    Args:
        model: in any mode, which is kept.
        classifier: the layers that read the features.
        inputs: (N,C,H,W).
        weights: used in place of the model's, by their names.

    Raises:
        ValueError: the output holds no logits, or the classifier was not called.
    """
    captured: list[Tensor] = []
    thread = threading.get_ident()

    def read(module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object]) -> None:
        features = first_tensor(arguments, keywords)
        if features is not None and threading.get_ident() == thread:
            captured.append(pooled(features, module))

    with ExitStack() as stack:
        for layer in map(model.get_submodule, classifier.names):
            stack.callback(layer.register_forward_pre_hook(read, with_kwargs=True).remove)
        output = model(inputs) if weights is None else functional_call(model, weights, (inputs,))
    return _logits_and_features(model, classifier, output, captured)


# Any: a model returns tensors, tuples, or objects of its library.
def _logits_and_features(
    model: nn.Module, classifier: Classifier, output: Any, captured: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the logits and the features, from the model's output and the captured inputs of its classifier."""
    if not classifier.names:
        first = output[0] if isinstance(output, tuple | list) else output
        features = pooled(first, model)
        return features, features
    logits = logits_of(output)
    if not captured:
        raise ValueError(f"the layer {classifier.names[0]!r} was not called in the forward: pass another classifier=")
    return logits, joined(captured)


class CompiledForward:
    """A compiled `forward`, which works until `remove` takes its hooks away.

    Only this function is compiled: the user's module keeps its ordinary call.
    """

    def __init__(self, model: nn.Module, classifier: Classifier) -> None:
        self.reading = False  # others may call the model, too, and their features must not be kept
        self.captured: list[Tensor] = []

        def read(module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object]) -> None:
            features = first_tensor(arguments, keywords)
            if self.reading and features is not None:
                self.captured.append(pooled(features, module))

        def whole(inputs: Tensor) -> tuple[Tensor, Tensor]:
            return _logits_and_features(model, classifier, model(inputs), self.captured)

        layers = map(model.get_submodule, classifier.names)
        self.handles = [layer.register_forward_pre_hook(read, with_kwargs=True) for layer in layers]
        self.run = torch.compile(whole)

    def __call__(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (N,K) and the features (N,D) of inputs (N,C,H,W)."""
        with warnings.catch_warnings():
            # torch.compile looks at the `.grad` of every tensor it meets, images under attack too.
            warnings.filterwarnings("ignore", message=r"The \.grad attribute of a Tensor that is not a leaf")
            self.reading = True
            # From the first call on: the second batch size would be compiled again otherwise, and a resumed run, which
            # has met the sizes in another order, would round differently.
            torch._dynamo.maybe_mark_dynamic(inputs, 0)
            try:
                outputs: tuple[Tensor, Tensor] = self.run(inputs)
            finally:
                self.reading = False
                self.captured.clear()
        return outputs

    def remove(self) -> None:
        """Remove the hooks; the forward cannot be called afterwards."""
        for handle in self.handles:
            handle.remove()


def first_tensor(arguments: tuple[object, ...], keywords: dict[str, object]) -> Tensor | None:
    """Return the first tensor among a layer's arguments; None if there is none."""
    for argument in (*arguments, *keywords.values()):  # torch 2.6 compiles no next() with a default
        if isinstance(argument, Tensor):
            return argument
    return None


def joined(captured: list[Tensor]) -> Tensor:
    """Combine the features (N,D) of several classifier layers into one row per image."""
    # Comparing whole shapes would bind a compiled forward to one batch size.
    if len({features.shape[-1] for features in captured}) > 1:
        return torch.cat(captured, 1)
    return captured[0] if len(captured) == 1 else torch.stack(captured).mean(0)


def pooled(features: Tensor, layer: nn.Module) -> Tensor:
    """Average features over tokens or pixels: (N,D) of (N,…,D) or (N,D,…)."""
    if features.dim() == 2:
        return features
    if _channels_second(features, layer):
        return features.flatten(2).mean(2)
    return features.flatten(1, -2).mean(1)


def _channels_second(features: Tensor, layer: nn.Module) -> bool:
    """Return True if channels are dimension 1, as for a convolution, and not the last, as for a linear layer."""
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor):
        return features.dim() > 3
    if weight.dim() == 1:  # a norm or a scale
        return features.shape[1] in weight.shape
    return weight.dim() > 2 or features.shape[-1] not in weight.shape


def _described(output: object) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    if isinstance(output, dict):
        return f"a dict with the keys {', '.join(map(str, output))}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {len(output)} ({_described(output[0]) if output else 'empty'} first)"
    return f"a {type(output).__name__}"
