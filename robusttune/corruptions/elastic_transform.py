"""Elastic transform: stretched and bent like rubber."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from robusttune.corruptions import Corruption
from robusttune.corruptions._filters import bell

__all__ = ["elastic_transform"]

Level = tuple[float, float, float]
LEVELS = {  # strength and sigma (in pixels) of the moves of pixels, and largest move of the corners
    32: ((0.0, 0.0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)),
    64: ((0.0, 0.0, 5.12), (3.2, 19.2, 3.84), (6.4, 5.12, 3.84), (6.4, 1.92, 1.92), (10.24, 1.92, 1.28)),
    224: ((488.0, 170.8, 24.4), (488.0, 19.52, 48.8), (12.2, 2.44, 4.88), (17.08, 2.44, 4.88), (29.28, 2.44, 4.88)),
}
TRUNCATE = 3.0


def draw(image: Tensor, level: Level, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw moves from -1 to 1 of three points (3,2), and of each pixel (2,H,W): right, down."""
    points = torch.empty(3, 2, device=image.device).uniform_(-1, 1, generator=generator)
    return points, torch.empty(2, *image.shape[-2:], device=image.device).uniform_(-1, 1, generator=generator)


def apply(images: Tensor, level: Level, points: Tensor, noise: Tensor) -> Tensor:
    """Transform images (N,C,H,W) by a random affine map, then move each pixel by smoothed noise."""
    strength, sigma, jitter = level
    images = _sheared(images, points * jitter)
    if not strength:
        return images
    height, width = images.shape[-2:]
    down, across = (bell(side, sigma, TRUNCATE, "mirror", images.device) for side in (height, width))
    moves = down @ noise @ across.T * strength
    rows = torch.arange(height, device=images.device)[:, None] + moves[:, 1]
    columns = torch.arange(width, device=images.device) + moves[:, 0]
    return _sampled(images, columns, rows, edges_repeat=True)


def _sheared(images: Tensor, moves: Tensor) -> Tensor:
    """Transform images (N,C,H,W) by the affine maps that move three points near their corners by `moves` (N,3,2)."""
    height, width = images.shape[-2:]
    # The difference between the map and the identity is linear in the moves of the three points.
    change = moves.transpose(1, 2) @ _from_points(height, width, images.device)
    a, b = 1 + change[:, 0, 0], change[:, 0, 1]
    c, d = change[:, 1, 0], 1 + change[:, 1, 1]
    determinant = (a * d - b * c)[:, None, None]
    right = torch.arange(width, device=images.device) - change[:, 0, 2, None, None]
    below = torch.arange(height, device=images.device)[:, None] - change[:, 1, 2, None, None]
    a, b, c, d = (entry[:, None, None] for entry in (a, b, c, d))
    return _sampled(
        images, (d * right - b * below) / determinant, (a * below - c * right) / determinant, edges_repeat=False
    )


def _sampled(images: Tensor, columns: Tensor, rows: Tensor, *, edges_repeat: bool) -> Tensor:
    """Sample images (N,C,H,W) at positions (N,H,W) between pixels; outside they are mirrored.

    With `edges_repeat`, the mirror lies just beyond the last pixel, otherwise at the last pixel.
    """
    height, width = images.shape[-2:]
    if edges_repeat:
        positions = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1)
    else:
        positions = torch.stack([2 * columns / (width - 1) - 1, 2 * rows / (height - 1) - 1], dim=-1)
    return F.grid_sample(images, positions, padding_mode="reflection", align_corners=not edges_repeat)


@lru_cache(maxsize=16)
def _from_points(height: int, width: int, device: torch.device) -> Tensor:
    """Return the matrix (3,3) that turns the moves (2,3) of three points into the affine map (2,3) that does them."""
    # The published program swaps rows and columns here, which matters only for images that are not square.
    middle = (height // 2, width // 2)
    reach = min(height, width) // 3
    x = [middle[0] + reach, middle[0] + reach, middle[0] - reach]
    y = [middle[1] + reach, middle[1] - reach, middle[1] - reach]
    inverse: Tensor = torch.linalg.inv(torch.tensor([x, y, [1, 1, 1]], dtype=torch.float64))
    return inverse.float().to(device)


elastic_transform = Corruption("elastic_transform", "digital", LEVELS, apply, draw)
