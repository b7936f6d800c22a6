"""JPEG compression of low quality."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from robusttune.corruptions import Corruption

__all__ = ["jpeg_compression"]

LEVELS = {32: (80, 65, 58, 50, 40), 64: (65, 58, 50, 40, 25), 224: (25, 18, 15, 10, 7)}
# Steps by which coefficients are divided at quality 50, row by row: ITU-T T.81, tables K.1 and K.2.
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
BLOCK = 8


def apply(images: Tensor, quality: int) -> Tensor:
    """Compress and decompress images (N,C,H,W) as Pillow does: baseline JPEG with halved colour resolution (4:2:0).

    Images without exactly three channels are compressed channel by channel, as grey images.
    """
    levels = torch.round(images * 255)
    if images.shape[1] != 3:
        return _decoded(levels, LUMINANCE, quality) / 255
    red, green, blue = levels.chunk(3, dim=1)
    luma = torch.round(0.299 * red + 0.587 * green + 0.114 * blue)
    cb = torch.round((blue - 0.299 * red - 0.587 * green - 0.114 * blue) / 1.772 + 128)
    cr = torch.round((red - 0.299 * red - 0.587 * green - 0.114 * blue) / 1.402 + 128)
    luma = _decoded(luma, LUMINANCE, quality)
    colour = _decoded(_halved(torch.cat([cb, cr], dim=1).clamp(0, 255)), CHROMINANCE, quality)
    cb, cr = (_doubled(colour, images.shape[-2:]) - 128).chunk(2, dim=1)
    blended = (0.114 * 1.772 * cb + 0.299 * 1.402 * cr) / 0.587
    return torch.cat([luma + 1.402 * cr, luma - blended, luma + 1.772 * cb], dim=1).round().clamp(0, 255) / 255


def _decoded(levels: Tensor, table: tuple[tuple[int, ...], ...], quality: int) -> Tensor:
    """Round the cosine coefficients of 8×8 blocks of planes (N,C,H,W) from 0 to 255 to steps of the table."""
    height, width = levels.shape[-2:]
    padded = F.pad(levels - 128, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
    rows, columns = (side // BLOCK for side in padded.shape[-2:])
    blocks = padded.reshape(*levels.shape[:2], rows, BLOCK, columns, BLOCK).transpose(3, 4).flatten(4)
    cosines, steps = _cosines(levels.device), _steps(table, quality, levels.device)
    # Rounded half away from zero, as in libjpeg; the small number compensates rounding errors of fp32 just below a half.
    coefficients = blocks @ cosines.T / steps
    coefficients = torch.sign(coefficients) * torch.floor(coefficients.abs() + 0.5 + 1e-5) * steps
    blocks = torch.round(coefficients @ cosines + 128).clamp(0, 255)
    rows_of_blocks = blocks.view(*blocks.shape[:4], BLOCK, BLOCK).transpose(3, 4)
    return rows_of_blocks.reshape(padded.shape)[..., :height, :width]


def _halved(planes: Tensor) -> Tensor:
    """Halve the size of planes (N,C,H,W): means of 2×2, with halves rounded down and up in turn, as in libjpeg."""
    height, width = planes.shape[-2:]
    # libjpeg repeats the last row and column to whole blocks before it averages.
    padded = F.pad(planes, (0, width % 2, 0, height % 2), mode="replicate")
    means = F.avg_pool2d(padded, 2)
    column = torch.arange(means.shape[-1], device=planes.device)
    return torch.floor(means + 0.25 + 0.25 * (column % 2))


def _doubled(planes: Tensor, size: torch.Size) -> Tensor:
    """Double the size of planes (N,C,h,w), cropped to `size`: ¾ of the nearest value plus ¼ of the next."""
    padded = F.pad(planes, (1, 1, 1, 1), mode="replicate")
    here = 3 * padded[..., 1:-1, :]
    tall = torch.stack([here + padded[..., :-2, :], here + padded[..., 2:, :]], dim=3).flatten(2, 3)
    here = 3 * tall[..., 1:-1]
    wide = torch.stack([here + tall[..., :-2] + 8, here + tall[..., 2:] + 7], dim=4).flatten(3)
    return torch.floor(wide / 16)[..., : size[0], : size[1]]


@lru_cache(maxsize=8)
def _cosines(device: torch.device) -> Tensor:
    """Return the orthonormal discrete cosine transform (64,64) of a flattened 8×8 block."""
    place = torch.arange(BLOCK, dtype=torch.float64)
    waves = torch.cos((2 * place + 1) * place[:, None] * torch.pi / (2 * BLOCK)) / 2
    waves[0] /= 2**0.5
    return torch.kron(waves, waves).float().to(device)


@lru_cache(maxsize=64)
def _steps(table: tuple[tuple[int, ...], ...], quality: int, device: torch.device) -> Tensor:
    """Return the steps (64,) for a quality, as libjpeg scales them."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = (torch.tensor(table).flatten() * scale + 50) // 100
    return steps.clamp(1, 255).float().to(device)


jpeg_compression = Corruption("jpeg_compression", "digital", LEVELS, apply)
