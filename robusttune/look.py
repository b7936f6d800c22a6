"""What one look at a model and its images tells."""

from typing import Any

from torch import Tensor, nn

from robusttune.batches import check_images
from robusttune.features import Classifier, find_classifier, sample_inputs
from robusttune.modes import device_of, dtype_of
from robusttune.pixels import Pixels, find_pixels


def look(
    model: nn.Module, images: Tensor | None, mean: Any, std: Any, normalized: bool | None, classifier: str | None
) -> tuple[Pixels, Classifier]:
    """The space of the images and the model's classifier, from the user's images or from made-up ones."""
    if images is not None:
        check_images(images)
        pixels = find_pixels(images, mean=mean, std=std, normalized=normalized, model=model)
        inputs = pixels.inputs(pixels.pixels(images[:2].cpu())).to(device_of(model), dtype_of(model))
        return pixels, find_classifier(model, inputs, classifier)
    pixels = Pixels(mean, std, normalized=normalized is not False)
    for inputs in sample_inputs(model):
        try:
            return pixels, find_classifier(model, inputs, classifier)
        except (RuntimeError, AssertionError):
            continue  # made-up images of a size that the model does not take
    raise ValueError("no made-up image fits the model: pass images=, a batch as your loader gives it")
