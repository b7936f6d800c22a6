"""Example inputs of a model: random images of the size that it was trained on, or of one that it takes."""

import warnings

import torch
from torch import Tensor, nn

from robusttune.data.pixels import Pixels
from robusttune.model.devices import device_of, dtype_of
from robusttune.model.input_shapes import sample_inputs
from robusttune.model.probe import first_logits
from robusttune.run.about import About

COUNT = 2


def example_inputs(model: nn.Module, about: About | None = None) -> Tensor:
    """Return two random inputs (2,C,H,W) of a model, always the same ones, on its device and of its dtype.

    Args:
        model: images -> logits (N,K).
        about: what is known of its images: their size, channels, mean and std.

    Raises:
        ValueError: the model does not take images of this size; or of none that is tried, where the size is not known.
    """
    if about is not None and about.size is not None and about.channels is not None:
        pixels = torch.rand(COUNT, about.channels, *about.size, generator=torch.Generator().manual_seed(0))
        inputs = Pixels(about.mean, about.std).inputs(pixels).to(device_of(model), dtype_of(model))
        first_logits(model, inputs)
        return inputs
    for inputs in sample_inputs(model):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                first_logits(model, inputs)
        except ValueError:
            continue  # the model does not take images of this size
        return inputs
    raise ValueError(
        "no random image fits the model, and the size of its images is not known: pass run=, the folder of its run, or records= "
        "that evaluate measured on it"
    )
