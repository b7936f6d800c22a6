"""PRIME: random mixtures of random filters, smooth deformations and smooth changes of colours."""

import math
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robusttune.augmentations import crop_and_flip, is_large

__all__ = ["prime"]

WIDTH, DEPTH, PRIMITIVES = 3, 3, 3
FILTER_SPREAD = 4.0
LEVELS = 256
LOWEST_CUT = 2


class Prime(nn.Module):
    """Crop and flip, then a mixture of each image with three chains of one to three random primitives.

    The primitives are no test corruptions, although random filters blur and random curves change colours.

    Attributes:
        overlaps: the test corruptions that it contains: none.

    Source: Modas et al., arXiv:2112.13547; settings of its CIFAR-10 and ImageNet configurations; each image draws a strength
    below the largest. Departures: the identity is in the middle of the filter, deformations have no waves finer than a
    pixel, and colour maps act on 256 levels.
    """

    overlaps: frozenset[str] = frozenset()

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.first = nn.Sequential(*crop_and_flip(images))
        large = is_large(images)
        self.cut, self.colour, self.band = (500, 0.05, 20) if large else (100, 0.01, 100)

    def forward(self, images: Tensor) -> Tensor:
        """Return the images (N,C,H,W) augmented, in [0,1]; of any float type, computed with in fp32."""
        dtype, images = images.dtype, self.first(images.float())
        count, device = len(images), images.device
        depths = torch.randint(1, DEPTH + 1, (WIDTH * count,)).tolist()
        chains = images.repeat(WIDTH, 1, 1, 1)
        for step in range(DEPTH):
            chosen = torch.randint(PRIMITIVES, (WIDTH * count,)).tolist()
            for number, primitive in enumerate((self._filtered, self._deformed, self._recoloured)):
                rows = [row for row, depth in enumerate(depths) if depth > step and chosen[row] == number]
                if rows:
                    where = torch.tensor(rows).to(device, non_blocking=True)
                    chains = chains.index_copy(0, where, primitive(chains[where]).clamp(0, 1))
        weights = torch.empty(WIDTH, count, 1, 1, 1, device=device).exponential_()
        mixed = (chains.view(WIDTH, *images.shape) * weights / weights.sum(0)).sum(0)
        return torch.lerp(images, mixed, torch.rand(count, 1, 1, 1, device=device)).to(dtype)

    def _filtered(self, images: Tensor) -> Tensor:
        """Filter each image with its own 3x3 filter: the identity plus Gaussian weights."""
        count = len(images)
        spread = torch.rand(count, 1, 1, device=images.device) * FILTER_SPREAD
        weights = torch.randn(count, 3, 3, device=images.device) * spread
        weights[:, 1, 1] += 1
        flat = images.transpose(0, 1)
        return F.conv2d(flat, weights[:, None], padding=1, groups=count).transpose(0, 1)

    def _deformed(self, images: Tensor) -> Tensor:
        """Move the pixels of each image by sums of sines, as far as possible without folding."""
        count, _, height, width = images.shape
        cut = self._cut(count, max(height, width)).to(images.device, non_blocking=True)
        least = 1 / (math.pi * max(height, width) ** 2 * cut.log())
        most = torch.maximum(least, 4 / (math.pi**3 * cut**2 * cut.log()))
        heat = least + (most - least) * torch.rand(count, device=images.device)
        down, across, lengths = _waves(height, width, min(self.cut, max(height, width)), images.device)
        amplitude = (lengths < cut[:, None, None] + 0.5) / lengths * heat[:, None, None].sqrt()
        moves = [down.T @ (torch.randn_like(amplitude) * amplitude) @ across for _ in range(2)]
        # Moves are in units of the image's side, which is 2 long, from -1 to 1.
        columns = torch.linspace(-1, 1, width, device=images.device) - 2 * moves[0]
        rows = torch.linspace(-1, 1, height, device=images.device)[:, None] - 2 * moves[1]
        grid = torch.stack([columns, rows], dim=-1)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=True)

    def _cut(self, count: int, side: int) -> Tensor:
        """Draw the highest frequency of each image's deformation (N,): below a random bound, and mostly near either end."""
        bound = LOWEST_CUT + 1 + torch.rand(count) * (self.cut - LOWEST_CUT)
        share = torch.sin(torch.rand(count) * math.pi / 2) ** 2  # Beta(1/2, 1/2)
        return (LOWEST_CUT + share * (bound + 1 - LOWEST_CUT)).floor().clamp(LOWEST_CUT, min(self.cut, side))

    def _recoloured(self, images: Tensor) -> Tensor:
        """Map the values of each channel through its own curve: the identity plus sines."""
        count, channels = images.shape[:2]
        highest = 1 + (torch.rand(count) * self.cut).floor()
        lowest = 1 + (torch.rand(count) * highest).floor() if self.band < self.cut else torch.ones(count)
        waves = lowest[:, None] + torch.arange(self.band)
        used = (waves <= highest[:, None])[:, None]
        heat = (torch.rand(count, 1, 1) * self.colour).sqrt()
        weights = torch.randn(count, channels, self.band) * used * heat
        shades = torch.linspace(0, 1, LEVELS)
        curves = shades + weights @ torch.sin(math.pi * waves[..., None] * shades)
        levels = (images * (LEVELS - 1)).round().long().flatten(2)
        return curves.to(images.device, non_blocking=True).gather(2, levels).view_as(images)


prime = Prime


@lru_cache(maxsize=8)
def _waves(height: int, width: int, count: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return sines (M,H) and (M,W) of M frequencies, and the length (M,M) of each pair of frequencies."""
    numbers = torch.arange(1, count + 1, dtype=torch.float32)
    sines = [torch.sin(math.pi * numbers[:, None] * torch.linspace(0, 1, side)) for side in (height, width)]
    return sines[0].to(device), sines[1].to(device), torch.hypot(numbers[:, None], numbers).to(device)
