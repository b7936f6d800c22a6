"""A new classifier for a model that has one of another number of classes."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from robusttune.model.classifier import find_classifier
from robusttune.model.devices import device_of, dtype_of
from robusttune.model.probe import first_logits
from robusttune.run.checkpoints import without_wrapper
from robusttune.run.files import give_weights

Layer = nn.Linear | nn.Conv2d
COUNTS = ("num_classes", "num_labels")  # attributes in which models keep the number of their classes


def give_classifier(model: nn.Module, inputs: Tensor, classes: int) -> int:
    """Replace the model's classifier, and auxiliary ones, by new layers; return the number of classes before.

    The new layer has random weights, and the dtype, the device, the bias and the `requires_grad` of the old one.

    Args:
        model: images -> logits (N,K); it is changed in place.
        inputs: (N,C,H,W), on the model's device.
        classes: outputs of the new layer.

    Raises:
        ValueError: the classifier cannot be found, or is no plain linear or convolutional layer; the model is unchanged.
    """
    first_logits(model, inputs)  # refuses images that the model cannot take
    known = find_classifier(model, inputs)
    layers = {name: model.get_submodule(name) for name in known.names}
    strange = next((name for name, layer in layers.items() if not is_plain(layer)), None)
    if strange is not None:
        raise ValueError(
            f"the classifier {strange!r} is a {type(layers[strange]).__name__}, which cannot be replaced here, as only plain "
            f"Linear and Conv2d layers can: make the model with {classes} outputs"
        )
    layers |= {name: layer for name, layer in model.named_modules() if _is_auxiliary(name, layer, known.classes)}
    counts = {name: getattr(model, name) for name in COUNTS if getattr(model, name, None) == known.classes}
    _put(model, {name: _like(layer, classes) for name, layer in layers.items()}, dict.fromkeys(counts, classes))
    outputs = first_logits(model, inputs).shape[1]
    if outputs != classes:
        _put(model, layers, counts)
        raise ValueError(
            f"the model has {outputs} outputs after its classifier {known.names[0]!r} was replaced by one of {classes}: make "
            f"the model with {classes} outputs"
        )
    return known.classes


def give_outputs(model: nn.Module, inputs: Tensor, outputs: int | None) -> None:
    """Replace the classifier, unless the model has this number of outputs already; None keeps the classifier."""
    if outputs is not None and first_logits(model, inputs).shape[1] != outputs:
        give_classifier(model, inputs, outputs)


def is_plain(layer: nn.Module) -> bool:
    """Return True for a layer that can be replaced by one of the same class with another number of outputs."""
    return type(layer) is nn.Linear or (type(layer) is nn.Conv2d and layer.groups == 1)


def _is_auxiliary(name: str, layer: nn.Module, classes: int) -> bool:
    """Return True for the last layer of a classifier that only helps training, as in torchvision's Inception."""
    return "aux" in name.lower() and is_plain(layer) and len(layer.get_parameter("weight")) == classes


def _put(model: nn.Module, layers: Mapping[str, nn.Module], counts: Mapping[str, int]) -> None:
    for name, layer in layers.items():
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, layer)
    for name, count in counts.items():
        setattr(model, name, count)


def _like(layer: nn.Module, outputs: int) -> nn.Module:
    """Make a layer like another one, with another number of outputs and random weights."""
    assert isinstance(layer, Layer)
    new: Layer
    if isinstance(layer, nn.Linear):
        new = nn.Linear(layer.in_features, outputs, layer.bias is not None)
    else:
        new = nn.Conv2d(
            layer.in_channels,
            outputs,
            layer.kernel_size,  # type: ignore[arg-type]
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            layer.dilation,  # type: ignore[arg-type]
            bias=layer.bias is not None,
            padding_mode=layer.padding_mode,
        )
    for name, parameter in new.named_parameters():
        parameter.requires_grad_(layer.get_parameter(name).requires_grad)
    return new.to(layer.weight.device, layer.weight.dtype).train(layer.training)


def give_weights_and_classifier(model: nn.Module, weights: Mapping[str, Tensor], source: str, inputs: Tensor) -> None:
    """Load weights into the model; where their classifier has another number of classes, the model gets such a one first.

    Args:
        model: images -> logits (N,K); it is changed in place.
        weights: as in the model, but for the number of classes.
        source: names the weights in an error.
        inputs: (N,C,H,W) that the model takes.

    Raises:
        ValueError: names or shapes differ in other places.
    """
    weights = without_wrapper(weights, model.state_dict(), source)
    outputs = _outputs_in(weights, model, inputs)
    if outputs is not None:
        give_classifier(model, inputs, outputs)
    give_weights(model, weights, source)


def sample_inputs_of(model: nn.Module, channels: int, size: int) -> Tensor:
    """Draw two images (2,C,H,W) on [0,1], always the same ones, in the dtype and on the device of the model."""
    images = torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    return images.to(device_of(model), dtype_of(model))


def _outputs_in(weights: Mapping[str, Tensor], model: nn.Module, inputs: Tensor) -> int | None:
    """Return the number of classes in the weights, where that alone differs from the model's; else None."""
    current = model.state_dict()
    if current.keys() != weights.keys():
        return None
    shapes = {name: (each.shape, weights[name].shape) for name, each in current.items() if isinstance(each, Tensor)}
    other = {name: pair for name, pair in shapes.items() if pair[0] != pair[1]}
    rows = {(before[:1], after[:1]) for before, after in other.values()}
    if len(rows) != 1 or any(before[1:] != after[1:] for before, after in other.values()):
        return None
    layers = {name.rpartition(".")[0] for name in other}
    return int(next(iter(rows))[1][0]) if layers >= set(find_classifier(model, inputs).names) else None
