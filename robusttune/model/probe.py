"""What one look at a model and its images tells."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from robusttune.data.batches import check_images
from robusttune.data.pixels import Pixels, find_pixels
from robusttune.model.borrowing import evaluating
from robusttune.model.classifier import find_backbone, find_classifier
from robusttune.model.devices import device_of, dtype_of
from robusttune.model.features import Classifier, logits_of
from robusttune.model.input_shapes import sample_inputs

SLACK = 1e-3


def probe(
    model: nn.Module,
    images: Tensor | None,
    mean: Any,
    std: Any,
    normalized: bool | None,
    classifier: str | None,
    *,
    labelled: bool = True,
) -> tuple[Pixels, Classifier]:
    """The space of the images and the model's classifier, from the user's images or from made-up ones.

    Where nothing is labelled, the model need not have a classifier.
    """
    found_in = find_classifier if labelled else find_backbone
    if images is not None:
        check_images(images, wait=True)
        pixels = find_pixels(images, mean=mean, std=std, normalized=normalized, model=model)
        inputs = pixels.inputs(pixels.pixels(images[:2].cpu())).to(device_of(model), dtype_of(model))
        if labelled:
            first_logits(model, inputs)
        return pixels, found_in(model, inputs, classifier)
    pixels = Pixels(mean, std, normalized=normalized is not False)
    for inputs in sample_inputs(model):
        try:
            found = found_in(model, inputs, classifier)
        except (RuntimeError, AssertionError):
            continue  # made-up images of a size that the model does not take
        if labelled:
            first_logits(model, inputs)
        return pixels, found
    raise ValueError("no made-up image fits the model: pass images=, a batch as your loader gives it")


def first_logits(model: nn.Module, inputs: Tensor) -> Tensor:
    """The logits (N,K), in eval mode, of the first inputs (N,C,H,W); a warning if they are probabilities.

    Raises:
        ValueError: the model cannot take such inputs, or gives no logits, or NaN.
    """
    try:
        with evaluating(model), torch.no_grad():
            output = model(inputs)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(_unfit(model, inputs, error)) from error
    logits = logits_of(output)
    if bool(logits.isnan().any()):
        raise ValueError(
            "the model answers the first images with NaN: load its weights again, or look for a broken layer"
        )
    # Log-probabilities are logits, too: softmax gives them back as they are.
    if logits.shape[1] > 1 and _are_probabilities(logits):
        warnings.warn(
            "the model returns probabilities (rows within [0, 1] that sum to 1), but cross-entropy needs logits and both "
            "training and attacks are weak on anything else: remove the softmax at the model's end",
            stacklevel=4,
        )
    return logits


def _are_probabilities(logits: Tensor) -> bool:
    slack = max(SLACK, torch.finfo(logits.dtype).eps)  # half precision rounds more
    inside = bool(((logits >= 0) & (logits <= 1)).all())
    return inside and bool(((logits.float().sum(1) - 1).abs() < slack).all())


def _unfit(model: nn.Module, inputs: Tensor, error: Exception) -> str:
    channels, shape = inputs.shape[1], tuple(inputs.shape[1:])
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is not None and first.in_channels != channels:
        return (
            f"images have {channels} channel{'s' * (channels > 1)}, but the model's first convolution takes "
            f"{first.in_channels}: convert the images, or make the model for {channels} (in timm, in_chans={channels})"
        )
    return (
        f"the model cannot take the first images, of shape (C, H, W) = {shape}: resize them in the transform to what it "
        f"takes, or look at its own message ({type(error).__name__}: {error})"
    )
