"""Crop and flip: what every augmentation of training images begins with."""

from kornia import augmentation as kornia
from torch import Tensor, nn

LARGE_SIDE = 160


def is_large(images: Tensor) -> bool:
    """Whether images (N,C,H,W) are treated as the field treats ImageNet's, not as CIFAR's."""
    return min(images.shape[-2:]) >= LARGE_SIDE


def crop_and_flip(images: Tensor) -> list[nn.Module]:
    """For small images a crop after padding by an eighth, for large ones a resized crop; and a flip."""
    height, width = images.shape[-2:]
    flip = kornia.RandomHorizontalFlip(p=0.5)
    if is_large(images):
        return [kornia.RandomResizedCrop((height, width), scale=(0.25, 1.0), p=1.0), flip]
    return [kornia.RandomCrop((height, width), padding=(width // 8, height // 8), p=1.0), flip]
