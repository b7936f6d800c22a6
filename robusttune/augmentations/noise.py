"""Gaussian noise on half of the images."""

import torch
from torch import Tensor, nn

from robusttune.augmentations import crop_and_flip

__all__ = ["noise"]

LARGEST = 0.1


class Noise(nn.Module):
    """Crop and flip, then Gaussian noise on half of the images, with a standard deviation uniform on [0, 0.1].

    With one standard deviation for all images, the model would resist only that one.

    Attributes:
        overlaps: the test corruptions that it contains.

    Source: Kireev et al., arXiv:2103.02325, section 3, for noise on half of the images.
    """

    overlaps = frozenset({"gaussian_noise"})

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.first = nn.Sequential(*crop_and_flip(images))

    def forward(self, images: Tensor) -> Tensor:
        """Return the images (N,C,H,W) augmented, in [0,1]; of any float type, computed with in fp32."""
        dtype, images = images.dtype, self.first(images.float())
        shape = (len(images), 1, 1, 1)
        spread = torch.rand(shape, device=images.device) * LARGEST
        spread = spread * (torch.rand(shape, device=images.device) < 0.5)
        return (images + spread * torch.randn_like(images)).clamp(0, 1).to(dtype)


noise = Noise
