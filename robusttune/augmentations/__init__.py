"""Augmentations of training images, one file each: a class, called with a batch of the images first, see `Augmentation`."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

from torch import Tensor

from robusttune.augmentations._crop_flip import crop_and_flip
from robusttune.model.input_shapes import is_large

__all__ = ["Augment", "AugmentLike", "Augmentation", "crop_and_flip", "is_large"]


class Augmentation(Protocol):
    """The contract of a file in `augmentations/`: a class `(images) -> augmentation`, whose instances are these.

    The class is called with a batch (N,C,H,W) of the training images first, so that it can fit their size. An
    augmentation then changes each image in another random way. It draws from torch's global random state, as Kornia's
    augmentations do: callers seed this state and restore it. No gradient flows through an augmentation.

    Attributes:
        overlaps: the test corruptions that the augmentation trains on; evaluations mark them.
    """

    @property
    def overlaps(self) -> frozenset[str]: ...

    def __call__(self, images: Tensor, /) -> Tensor:
        """Return the images (N,C,H,W) in [0,1] augmented, in the same shape; callers clamp the result to [0,1]."""


Augment: TypeAlias = Callable[[Tensor], Tensor]
# An augmentation as users write it: the name of a file, "auto", "none" or None, or a function of images (N,C,H,W).
AugmentLike: TypeAlias = str | Augment | None
