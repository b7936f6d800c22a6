"""Filters and colours that several corruptions share."""

from functools import lru_cache

import torch
from kornia.filters import filter2d_separable
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)
TRUNCATE = 4.0


def smoothed(images: Tensor, sigma: float) -> Tensor:
    """Images (N,C,H,W) under a Gaussian of `sigma` pixels, cut at 4 sigma; their borders go on outside."""
    # Not gaussian_blur2d, which sends its weights to the device anew each time.
    weights = _bell(sigma, images.device)
    if weights.shape[1] == 1:
        return images
    blurred: Tensor = filter2d_separable(images, weights, weights, "replicate")
    return blurred


@lru_cache(maxsize=64)
def _bell(sigma: float, device: torch.device) -> Tensor:
    """The weights (1,K) of a Gaussian cut at 4 sigma."""
    reach = int(TRUNCATE * sigma + 0.5)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1).double() / sigma) ** 2)
    return (weights / weights.sum()).float()[None].to(device)


def drawn_out(images: Tensor, angles: Tensor, radius: int, sigma: float) -> Tensor:
    """Images (N,C,H,W) blurred to one side along `angles` (N,) in degrees, as ImageMagick's motion blur does.

    The weights are half a Gaussian over 2·radius+1 whole pixels; borders go on outside.
    """
    height, width = images.shape[-2:]
    taps = torch.arange(2 * radius + 1, device=images.device, dtype=angles.dtype)
    weights = torch.exp(-(taps**2) / (2 * sigma**2))
    weights = (weights / weights.sum()).to(images.dtype)
    turns = torch.deg2rad(angles)[:, None]
    right = torch.ceil(taps * torch.cos(turns) - 0.5).long()
    down = torch.ceil(taps * torch.sin(turns) - 0.5).long()
    rows = torch.arange(height, device=images.device) + down[..., None]
    columns = torch.arange(width, device=images.device) + right[..., None]
    rows, columns = rows.clamp(0, height - 1) * width, columns.clamp(0, width - 1)
    flat = images.flatten(2)
    blurred = torch.zeros_like(flat)
    for tap in range(2 * radius + 1):
        places = (rows[:, tap, :, None] + columns[:, tap, None, :]).flatten(1)
        blurred += flat.gather(2, places[:, None].expand_as(flat)) * weights[tap]
    return blurred.view_as(images)


def enlarged(images: Tensor, factor: float) -> Tensor:
    """The middle of images (N,C,H,W), enlarged so many times by straight interpolation to fill the picture."""
    height, width = images.shape[-2:]
    rows, columns = (-int(-side / factor // 1) for side in (height, width))
    top, left = (height - rows) // 2, (width - columns) // 2
    size = (round(rows * factor), round(columns * factor))
    middle = images[..., top : top + rows, left : left + columns]
    large = F.interpolate(middle, size, mode="bilinear", align_corners=True)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return large[..., top : top + height, left : left + width]


def floored(images: Tensor) -> Tensor:
    """Images in [0,1] in 256 steps, rounded down, as the published programs store them."""
    # What was 8 bits before must stay what it was: 254/255·255 is just below 254 in fp32.
    return torch.floor(images.clamp(0, 1) * 255 + 1e-3) / 255


def grey(images: Tensor) -> Tensor:
    """The brightness (N,1,H,W) of images with three channels (ITU-R BT.601), the mean over any other number."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    red, green, blue = images.chunk(3, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def tinted(shade: Tensor, colour: tuple[float, float, float], channels: int) -> Tensor:
    """A shade (N,1,H,W) in a colour (N,3,H,W), or as bright as it for another number of channels."""
    if channels == 3:
        return torch.cat([shade * part for part in colour], dim=1)
    return shade * sum(weight * part for weight, part in zip(LUMA, colour, strict=True))
