"""Crop and flip, and for large images a light jitter of colours."""

from kornia import augmentation as kornia
from torch import Tensor, nn

from robusttune.augmentations import crop_and_flip, is_large

__all__ = ["standard"]


class Standard(nn.Sequential):
    """Crop and flip; from 160 px on resized crop, flip and a light jitter of colours.

    Attributes:
        overlaps: the test corruptions that it contains.
    """

    overlaps: frozenset[str] = frozenset()

    def __init__(self, images: Tensor) -> None:
        steps = crop_and_flip(images)
        if is_large(images) and images.shape[1] == 3:
            steps.append(kornia.ColorJiggle(0.1, 0.1, 0.1, 0.0, p=0.5))
            self.overlaps = frozenset({"brightness", "contrast", "saturate"})
        super().__init__(*steps)


standard = Standard
