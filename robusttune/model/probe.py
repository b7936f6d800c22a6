"""Probe of a model with one batch: its pixel space, its classifier layer, and its first logits."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robusttune.data.batches import check_images
from robusttune.data.pixels import Pixels, find_pixels
from robusttune.model.borrowing import evaluating
from robusttune.model.classifier import find_backbone, find_classifier
from robusttune.model.devices import device_of, dtype_of
from robusttune.model.features import Classifier, logits_of
from robusttune.model.input_shapes import sample_inputs
from robusttune.types import Channels

SLACK = 1e-3


def probe(
    model: nn.Module,
    images: Tensor | None,
    mean: Channels | None,
    std: Channels | None,
    normalized: bool | None,
    classifier: str | None,
    *,
    labelled: bool = True,
) -> tuple[Pixels, Classifier]:
    """Find the pixel space of the images and the model's classifier, with the user's images or with random ones.

    Args:
        model: on any device, in any mode.
        images: (N,C,H,W) as the user's loader gives them; None to try random images of usual sizes.
        mean: the mean of the user's normalisation, or None.
        std: the standard deviation of the user's normalisation, or None.
        normalized: whether images are normalised; None to find out.
        classifier: name of the classifier layer; None to find it.
        labelled: False if there are no labels, so that the model need not have a classifier.

    Raises:
        ValueError: the model cannot take the images, no random image fits, or the classifier cannot be found.
    """
    find = find_classifier if labelled else find_backbone
    if images is not None:
        check_images(images, wait=True)
        pixels = find_pixels(images, mean=mean, std=std, normalized=normalized, model=model)
        inputs = pixels.inputs(pixels.pixels(images[:2].cpu())).to(device_of(model), dtype_of(model))
        if labelled:
            first_logits(model, inputs)
        with _refused_in_words(model, inputs):
            return pixels, find(model, inputs, classifier)
    pixels = Pixels(mean, std, normalized=normalized is not False)
    pixels.assumed = pixels.known and normalized is None
    for inputs in sample_inputs(model):
        try:
            layer = find(model, inputs, classifier)
        except (RuntimeError, AssertionError):
            continue  # the model does not take images of this size
        if labelled:
            first_logits(model, inputs)
        return pixels, layer
    raise ValueError("no random image fits the model: pass images=, a batch as your loader gives it")


def first_logits(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return the logits (N,K), in eval mode, of the first inputs (N,C,H,W), and warn if they are probabilities.

    Raises:
        ValueError: the model cannot take such inputs, or gives no logits, or NaN.
    """
    with _refused_in_words(model, inputs), evaluating(model), torch.no_grad():
        output = model(inputs.clone())  # which some models write into
    logits = logits_of(output)
    if bool(logits.isnan().any()):
        raise ValueError(
            "the model answers the first images with NaN: load its weights again, or look for a broken layer"
        )
    # Log-probabilities are logits too: softmax turns them into the same probabilities.
    if logits.shape[1] > 1 and _are_probabilities(logits):
        warnings.warn(
            "the model returns probabilities (rows within [0, 1] that sum to 1), but cross-entropy needs logits and both "
            "training and attacks are weak on anything else: remove the softmax at the model's end",
            stacklevel=4,
        )
    return logits


@contextmanager
def _refused_in_words(model: nn.Module, inputs: Tensor) -> Iterator[None]:
    """Turn what a model raises on its first inputs (N,C,H,W) into a ValueError that says what it was given."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(_unfit(model, inputs, error)) from error


def _are_probabilities(logits: Tensor) -> bool:
    slack = max(SLACK, torch.finfo(logits.dtype).eps)  # half precision rounds more
    inside = bool(((logits >= 0) & (logits <= 1)).all())
    return inside and bool(((logits.float().sum(1) - 1).abs() < slack).all())


def _unfit(model: nn.Module, inputs: Tensor, error: Exception) -> str:
    """Return the error text for images that the model cannot take."""
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
