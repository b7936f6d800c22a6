"""Frost on a window: procedural crystals, or the user's pictures of frost."""

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from robusttune.corruptions import Corruption, preset_of
from robusttune.corruptions._filters import drawn_out, grey
from robusttune.types import PathLike

__all__ = ["frost"]

LEVELS = {  # weight of the image, weight of the frost
    32: ((1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    64: ((1.0, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
    224: ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
}
# Mean colour, standard deviation of brightness and slope of the spectrum of the pictures that the published programs
# choose from: one teal, two white, one grey, one dark.
STYLES = (
    ((0.296, 0.577, 0.643), 0.060, -1.60),
    ((0.778, 0.795, 0.832), 0.076, -1.50),
    ((0.778, 0.795, 0.832), 0.076, -1.50),
    ((0.571, 0.629, 0.680), 0.104, -1.15),
    ((0.393, 0.438, 0.484), 0.138, -1.75),
)
NEEDLES, RARE, NEEDLE_SHARE, LENGTH = 6, 0.004, 0.5, 16
# By preset: factor of waves as long as the picture, flattening of the spectrum, softness.
WAVES = {32: (2.2, 0.35, 0.0), 64: (2.0, 0.1, 0.0), 224: (1.2, 0.0, 0.5)}
# The factors by which the published programs shrink their pictures for small images.
SHRUNK = {32: 0.2, 64: 0.3, 224: 1.0}
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def draw(
    image: Tensor, level: object, generator: torch.Generator, *, frost_dir: PathLike | None = None
) -> tuple[Tensor, ...]:
    """Draw the inputs of procedural frost: a number for the style, noise (H,W), seeds of needles (6,H,W), angles (6,).

    With `frost_dir`, a folder of pictures, draw a part (C,H,W) of one picture instead.
    """
    if frost_dir is not None:
        return (_part(image, str(frost_dir), generator),)
    size = image.shape[-2:]
    pick = torch.empty((), device=image.device).uniform_(0, len(STYLES), generator=generator)
    noise = torch.empty(size, device=image.device).normal_(generator=generator)
    seeds = torch.empty(NEEDLES, *size, device=image.device).uniform_(generator=generator)
    return pick, noise, seeds, torch.empty(NEEDLES, device=image.device).uniform_(0, 360, generator=generator)


def apply(images: Tensor, level: tuple[float, float], *drawn: Tensor) -> Tensor:
    """Darken images (N,C,H,W), and add frost."""
    left, frozen = level
    pictures = drawn[0] if len(drawn) == 1 else _crystals(*drawn, channels=images.shape[1])
    return left * images + frozen * pictures


def _crystals(picks: Tensor, noise: Tensor, seeds: Tensor, angles: Tensor, *, channels: int) -> Tensor:
    """Compute pictures (N,C,H,W) with the statistics of photographs of frost, though not the same shapes.

    They are the sum of a field with a power-law spectrum, and of needles: sparse seeds, blurred along six directions and
    weighted by a field of low frequency.
    """
    height, width = noise.shape[-2:]
    colours, spreads, slopes = _styles(noise.device)
    style = picks.long().clamp_max(len(STYLES) - 1)
    preset = preset_of(noise[:, None])
    field = _power_law(noise, slopes[style], preset)
    length = max(2, round(min(height, width) / LENGTH))
    grown = drawn_out((seeds < RARE).float().flatten(0, 1)[:, None], angles.flatten(), length, length)
    needles = grown.view_as(seeds).sum(1) * torch.sigmoid(2 * _power_law(noise.flip(-1), slopes[style] - 1, preset))
    texture = _standard((1 - NEEDLE_SHARE) * field + NEEDLE_SHARE * _standard(needles))
    shade = 1 + (texture * (spreads[style] / colours[style].mean(1))[:, None, None])[:, None]
    pictures = (shade * colours[style][..., None, None]).clamp(0, 1)
    return pictures if channels == 3 else grey(pictures)


def _power_law(noise: Tensor, slopes: Tensor, preset: int) -> Tensor:
    """Filter noise (N,H,W) to a power-law spectrum with exponents `slopes` (N,), mean 0 and standard deviation 1."""
    height, width = noise.shape[-2:]
    frequency, factor = _frequencies(height, width, preset, noise.device)
    spectrum = torch.fft.rfft2(noise) * factor * frequency ** (slopes[:, None, None] / 2)
    return _standard(torch.fft.irfft2(spectrum, (height, width)))


def _standard(fields: Tensor) -> Tensor:
    """Shift and scale fields (N,H,W) to mean 0 and standard deviation 1."""
    fields = fields - fields.mean((1, 2), keepdim=True)
    return fields / fields.std((1, 2), keepdim=True).clamp_min(1e-6)


@lru_cache(maxsize=16)
def _frequencies(height: int, width: int, preset: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the frequency of each coefficient of rfft2, in waves per picture, and its factor over the power law."""
    down, across = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
    waves = torch.hypot(down * height, across * width)
    strength, flatter, softness = WAVES[preset]
    factor = torch.where(waves < 2, strength, 1.0) * waves.clamp_min(1) ** (flatter / 2)
    factor = factor * torch.exp(-2 * (torch.pi * softness) ** 2 * (down**2 + across**2))
    return waves.clamp_min(1).to(device), factor.to(device)


@lru_cache(maxsize=8)
def _styles(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    colours, spreads, slopes = (torch.tensor(values) for values in zip(*STYLES, strict=True))
    return colours.to(device), spreads.to(device), slopes.to(device)


def _part(image: Tensor, folder: str, generator: torch.Generator) -> Tensor:
    """Cut a random part out of one of the user's pictures, of the image's shape (C,H,W)."""
    channels, height, width = image.shape
    pictures = _pictures(folder, preset_of(image[None]), image.device)
    first, down, across = torch.rand(3, generator=generator, device=image.device).tolist()
    picture = pictures[int(first * len(pictures))]
    short = max(height / picture.shape[-2], width / picture.shape[-1], 1.0)
    if short > 1:
        size = [math.ceil(side * short) for side in picture.shape[-2:]]
        picture = F.interpolate(picture[None], size, mode="bilinear")[0]
    top, left = (
        int(at * (1 + have - want))
        for at, have, want in zip((down, across), picture.shape[-2:], (height, width), strict=True)
    )
    part = picture[:, top : top + height, left : left + width]
    return part if channels == 3 else grey(part[None])[0].expand(channels, -1, -1)


@lru_cache(maxsize=4)
def _pictures(folder: str, preset: int, device: torch.device) -> list[Tensor]:
    """Read the pictures (3,H,W) of a folder, shrunk for small images as the published programs do.

    Raises:
        ValueError: the folder holds no picture.
    """
    paths = sorted(path for path in Path(folder).glob("*") if path.suffix.lower() in PICTURES)
    if not paths:
        raise ValueError(
            f"frost_dir={folder!r} holds no picture: put some there ({', '.join(PICTURES)}), or leave it out"
        )
    pictures = []
    for path in paths:
        with Image.open(path) as opened:
            levels = torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1).float() / 255
        if SHRUNK[preset] < 1:
            levels = F.interpolate(levels[None], scale_factor=SHRUNK[preset], mode="bilinear")[0]
        pictures.append(levels.to(device))
    return pictures


frost = Corruption("frost", "weather", LEVELS, apply, draw)
