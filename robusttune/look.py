"""What one look at a model and its images tells."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from robusttune.batches import check_images
from robusttune.features import Classifier, find_classifier, logits_of, sample_inputs
from robusttune.modes import device_of, dtype_of, evaluating
from robusttune.pixels import Pixels, find_pixels

SLACK = 1e-3


def look(
    model: nn.Module, images: Tensor | None, mean: Any, std: Any, normalized: bool | None, classifier: str | None
) -> tuple[Pixels, Classifier]:
    """The space of the images and the model's classifier, from the user's images or from made-up ones."""
    if images is not None:
        check_images(images, wait=True)
        pixels = find_pixels(images, mean=mean, std=std, normalized=normalized, model=model)
        inputs = pixels.inputs(pixels.pixels(images[:2].cpu())).to(device_of(model), dtype_of(model))
        first_logits(model, inputs)
        return pixels, find_classifier(model, inputs, classifier)
    pixels = Pixels(mean, std, normalized=normalized is not False)
    for inputs in sample_inputs(model):
        try:
            found = find_classifier(model, inputs, classifier)
        except (RuntimeError, AssertionError):
            continue  # made-up images of a size that the model does not take
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
    inside = bool(((logits >= 0) & (logits <= 1)).all())
    return inside and bool(((logits.float().sum(1) - 1).abs() < SLACK).all())


def _unfit(model: nn.Module, inputs: Tensor, error: Exception) -> str:
    channels, shape = inputs.shape[1], tuple(inputs.shape[1:])
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is not None and first.in_channels != channels:
        return (
            f"images have {channels} channels, but the model's first convolution takes {first.in_channels}: convert the "
            f"images, or make the model for {channels} (in timm, in_chans={channels})"
        )
    return (
        f"the model cannot take the first images, of shape (C, H, W) = {shape}: resize them in the transform to what it "
        f"takes, or look at its own message ({type(error).__name__}: {error})"
    )
