"""AugMix: random mixtures of chains of simple operations."""

import math
from collections.abc import Sequence

import torch
from kornia.enhance import posterize
from torch import Tensor, nn
from torch.nn import functional as F

from robusttune.augmentations import crop_and_flip, is_large

__all__ = ["augmix"]

WIDTH, DEPTH = 3, 3
LEAST = 0.1
GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
TONAL = ("autocontrast", "equalize", "posterize", "solarize")
OPERATIONS = GEOMETRIC + TONAL
# At level 10 of the paper's scale. A level of 3 rotates by at most 9 degrees, which does not disturb the rotation task.
DEGREES, SHEAR, SHIFT, BITS, LEVELS = 30, 0.3, 1 / 3, 4, 256


class AugMix(nn.Module):
    """Crop and flip, then a mixture of each image with three chains of one to three random operations.

    The operations are those of the paper without contrast, brightness, colour and sharpness, which the test corruptions
    contain; there is no consistency loss. The strength is 3 for small images and 1 from 160 px on.

    Attributes:
        overlaps: the test corruptions that it contains: none.

    Source: Hendrycks et al., arXiv:1912.02781, algorithm 1.
    """

    overlaps: frozenset[str] = frozenset()

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.first = nn.Sequential(*crop_and_flip(images))
        self.severity = 1.0 if is_large(images) else 3.0

    def forward(self, images: Tensor) -> Tensor:
        """Return the images (N,C,H,W) augmented, in [0,1]; of any float type, computed with in fp32."""
        dtype, images = images.dtype, self.first(images.float())
        count, device = len(images), images.device
        # Choices are drawn on the CPU, so that nothing waits for the device.
        depths = torch.randint(1, DEPTH + 1, (WIDTH * count,)).tolist()
        chains = images.repeat(WIDTH, 1, 1, 1)
        for step in range(DEPTH):
            rows = [row for row, depth in enumerate(depths) if depth > step]
            chosen = torch.randint(len(OPERATIONS), (len(rows),)).tolist()
            levels = torch.empty(len(rows)).uniform_(LEAST, self.severity)
            levels = levels * (torch.randint(2, (len(rows),)) * 2 - 1)
            chains = _changed(chains, rows, [OPERATIONS[number] for number in chosen], levels)
        weights = torch.empty(WIDTH, count, 1, 1, 1).exponential_()
        weights = (weights / weights.sum(0)).to(device, non_blocking=True)
        mixed = (chains.view(WIDTH, *images.shape) * weights).sum(0)
        share = torch.rand(count, 1, 1, 1).to(device, non_blocking=True)
        return torch.lerp(images, mixed, share).to(dtype)


augmix = AugMix


def _changed(images: Tensor, rows: Sequence[int], names: Sequence[str], levels: Tensor) -> Tensor:
    """Apply the operations of these names, at signed levels (R,), to the images in `rows`."""
    changed = images.clone()
    geometric = [number for number, name in enumerate(names) if name in GEOMETRIC]
    groups = [("geometric", geometric)]
    groups += [(tonal, [number for number, name in enumerate(names) if name == tonal]) for tonal in TONAL]
    for group, members in groups:
        if not members:
            continue
        index = torch.tensor([rows[number] for number in members]).to(images.device, non_blocking=True)
        strengths = levels[members]
        if group == "geometric":
            maps = torch.stack(
                [_map(names[number], level, images) for number, level in zip(members, strengths.tolist(), strict=True)]
            )
            changed[index] = _moved(images[index], maps.to(images.device, non_blocking=True))
        else:
            changed[index] = _TONAL[group](images[index], strengths.abs())
    return changed


def _map(name: str, level: float, images: Tensor) -> Tensor:
    """Return the affine map (2,3) of one operation, from positions in the result to positions in the image, in [-1,1]."""
    height, width = images.shape[-2:]
    turn = math.radians(int(level * DEGREES / 10)) if name == "rotate" else 0.0
    shear = level * SHEAR / 10
    across = 2 * int(level * width * SHIFT / 10) / width if name == "translate_x" else 0.0
    down = 2 * int(level * height * SHIFT / 10) / height if name == "translate_y" else 0.0
    cosine, sine = math.cos(turn), math.sin(turn)
    right = shear if name == "shear_x" else -sine
    left = shear if name == "shear_y" else sine
    return torch.tensor([[cosine, right * height / width, across], [left * width / height, cosine, down]])


def _moved(images: Tensor, maps: Tensor) -> Tensor:
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _autocontrast(images: Tensor, levels: Tensor) -> Tensor:
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    flat = high == low
    return ((images - low) / (high - low).masked_fill(flat, 1.0)).where(~flat, images)


def _equalized(images: Tensor, levels: Tensor) -> Tensor:
    """Equalise the histogram of each channel, as Pillow does; Kornia gives the same, but works image by image."""
    shades = (images * (LEVELS - 1)).round().long().flatten(2)
    counts = torch.zeros(*shades.shape[:2], LEVELS, dtype=torch.long, device=images.device)
    counts.scatter_add_(2, shades, torch.ones_like(shades))
    last = LEVELS - 1 - (counts.flip(2) > 0).int().argmax(2, keepdim=True)
    step = (shades.shape[2] - counts.gather(2, last)) // (LEVELS - 1)
    table = (counts.cumsum(2) - counts + step // 2) // step.clamp_min(1)
    table = torch.where(step > 0, table, torch.arange(LEVELS, device=images.device)).clamp_max(LEVELS - 1)
    return table.gather(2, shades).view_as(images) / (LEVELS - 1)


def _posterized(images: Tensor, levels: Tensor) -> Tensor:
    posterized: Tensor = posterize(images, (BITS - (levels * BITS / 10).int()).to(images.device, non_blocking=True))
    return posterized


def _solarized(images: Tensor, levels: Tensor) -> Tensor:
    bound = (1 - (levels * LEVELS / 10).floor() / LEVELS).to(images.device, non_blocking=True)
    return torch.where(images < bound[:, None, None, None], images, 1 - images)


_TONAL = {"autocontrast": _autocontrast, "equalize": _equalized, "posterize": _posterized, "solarize": _solarized}
