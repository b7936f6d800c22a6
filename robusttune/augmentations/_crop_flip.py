"""Crop and flip: the first steps of every augmentation of training images."""

from torch import Tensor, nn

from robusttune.model.input_shapes import is_large


def crop_and_flip(images: Tensor) -> list[nn.Module]:
    """Return a random crop and a random horizontal flip for images of this size (N,C,H,W).

    Large images get a resized crop, small ones a crop after padding by an eighth of the side.
    """
    from kornia import augmentation as kornia  # takes seconds to import, and not every run augments

    height, width = images.shape[-2:]
    flip = kornia.RandomHorizontalFlip(p=0.5)
    if is_large(images):
        return [kornia.RandomResizedCrop((height, width), scale=(0.25, 1.0), p=1.0), flip]
    return [kornia.RandomCrop((height, width), padding=(width // 8, height // 8), p=1.0), flip]
