"""Filters and colours that several corruptions share."""

import math
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)
TRUNCATE = 4.0
LARGE = 96 * 96


def smoothed(images: Tensor, sigma: float) -> Tensor:
    """Smooth images (N,C,H,W) by a Gaussian of `sigma` pixels, cut at 4 sigma; outside, the last pixels are repeated."""
    if int(TRUNCATE * sigma + 0.5) == 0:
        return images
    down, across = (bell(side, sigma, TRUNCATE, "repeat", images.device) for side in images.shape[-2:])
    return down @ (images @ across.T)


@lru_cache(maxsize=128)
def bell(side: int, sigma: float, truncate: float, border: Literal["repeat", "mirror"], device: torch.device) -> Tensor:
    """Return the matrix (side,side) that smooths a line of pixels by a Gaussian, cut at `truncate` sigma.

    A product with it is as exact as a convolution, several times faster on a CPU, and allows Gaussians that are wider
    than the image.

    Args:
        side: the side of the images.
        sigma: the sigma of the Gaussian, in pixels.
        truncate: number of sigma after which the Gaussian is cut.
        border: outside of the image, "repeat" its last pixel, or "mirror" the image.
        device: the device of the matrix.
    """
    reach = int(truncate * sigma + 0.5)
    taps = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (taps.double() / sigma) ** 2)
    places = torch.arange(side)[:, None] + taps
    if border == "repeat":
        places = places.clamp(0, side - 1)
    else:
        places = places % (2 * side)
        places = torch.where(places < side, places, 2 * side - 1 - places)
    matrix = torch.zeros(side, side, dtype=torch.float64)
    matrix.scatter_add_(1, places, (weights / weights.sum()).expand(side, -1))
    return matrix.float().to(device)


def convolved(images: Tensor, kernel: Tensor) -> Tensor:
    """Convolve images (N,C,H,W) with a symmetric kernel (K,K) by Fourier transforms; outside, images are mirrored."""
    reach = kernel.shape[-1] // 2
    height, width = images.shape[-2:]
    padded = _mirrored(images, reach)
    size = [_fast(side) for side in padded.shape[-2:]]
    spectrum = torch.fft.rfft2(padded, size) * torch.fft.rfft2(kernel, size)
    blurred: Tensor = torch.fft.irfft2(spectrum, size)
    return blurred[..., 2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width]


def _mirrored(images: Tensor, reach: int) -> Tensor:
    """Pad images (N,C,H,W) on all sides by their mirror images at the last pixels, more than once where they are narrower."""
    if reach < min(images.shape[-2:]):
        return F.pad(images, (reach, reach, reach, reach), mode="reflect")
    for axis in (-2, -1):
        last = images.shape[axis] - 1
        places = torch.arange(-reach, last + reach + 1, device=images.device) % (2 * last)
        images = images.index_select(axis, torch.minimum(places, 2 * last - places))
    return images


def _fast(length: int) -> int:
    """Return the next length with no prime factors but 2, 3 and 5, for which Fourier transforms are fast."""
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1


def drawn_out(images: Tensor, angles: Tensor, radius: int, sigma: float) -> Tensor:
    """Blur images (N,C,H,W) to one side along `angles` (N,) in degrees, as ImageMagick's motion blur does.

    The weights are half a Gaussian over 2·radius+1 whole pixels; outside, the last pixels are repeated.
    """
    taps = torch.arange(2 * radius + 1, device=images.device, dtype=angles.dtype)
    weights = [math.exp(-(tap**2) / (2 * sigma**2)) for tap in range(2 * radius + 1)]
    weights = [weight / sum(weights) for weight in weights]
    turns = torch.deg2rad(angles)[:, None]
    right = torch.ceil(taps * torch.cos(turns) - 0.5).long()
    down = torch.ceil(taps * torch.sin(turns) - 0.5).long()
    # Reading the angles would wait for an accelerator, so there all images gather their pixels at once; so do small
    # images on a CPU, for speed.
    shift = images.device.type == "cpu" and images.shape[-2] * images.shape[-1] >= LARGE
    return (_shifted if shift else _gathered)(images, right, down, weights)


def _shifted(images: Tensor, right: Tensor, down: Tensor, weights: list[float]) -> Tensor:
    """Return the weighted sum of copies of each image that are shifted by (N,T) pixels, with a loop over images."""
    height, width = images.shape[-2:]
    reach = len(weights) - 1
    padded = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    blurred = torch.zeros_like(images, memory_format=torch.contiguous_format)
    for image, result, columns, rows in zip(padded, blurred, right.tolist(), down.tolist(), strict=True):
        for column, row, weight in zip(columns, rows, weights, strict=True):
            top, left = reach + row, reach + column
            result.add_(image[:, top : top + height, left : left + width], alpha=weight)
    return blurred


def _gathered(images: Tensor, right: Tensor, down: Tensor, weights: list[float]) -> Tensor:
    """Return the same as `_shifted`, without reading any value on the host."""
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device) + down[..., None]
    columns = torch.arange(width, device=images.device) + right[..., None]
    rows, columns = rows.clamp(0, height - 1) * width, columns.clamp(0, width - 1)
    flat = images.flatten(2)
    blurred = torch.zeros_like(flat)
    for tap, weight in enumerate(weights):
        places = (rows[:, tap, :, None] + columns[:, tap, None, :]).flatten(1)
        blurred += flat.gather(2, places[:, None].expand_as(flat)) * weight
    return blurred.view_as(images)


def enlarged(images: Tensor, factor: float) -> Tensor:
    """Enlarge the middle of images (N,C,H,W) by a factor with bilinear interpolation, to the size of the image."""
    height, width = images.shape[-2:]
    rows, columns = (-int(-side / factor // 1) for side in (height, width))
    top, left = (height - rows) // 2, (width - columns) // 2
    size = (round(rows * factor), round(columns * factor))
    middle = images[..., top : top + rows, left : left + columns]
    large = F.interpolate(middle, size, mode="bilinear", align_corners=True)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return large[..., top : top + height, left : left + width]


def floored(images: Tensor) -> Tensor:
    """Round images in [0,1] down to 256 levels, as the published programs store them."""
    # Values that are 8-bit levels already must not change: 254/255·255 is just below 254 in fp32.
    return torch.floor(images.clamp(0, 1) * 255 + 1e-3) / 255


def grey(images: Tensor) -> Tensor:
    """Return the brightness (N,1,H,W): of three channels by ITU-R BT.601, of any other number their mean."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    red, green, blue = images.chunk(3, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def tinted(shade: Tensor, colour: tuple[float, float, float], channels: int) -> Tensor:
    """Colour a shade (N,1,H,W): (N,3,H,W) for three channels, else (N,1,H,W) with the brightness of the colour."""
    if channels == 3:
        return torch.cat([shade * part for part in colour], dim=1)
    return shade * sum(weight * part for weight, part in zip(LUMA, colour, strict=True))
