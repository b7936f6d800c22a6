"""The Euclidean norm of a perturbation, per image."""

import math

import torch
from torch import Tensor

from robusttune.norms import per_image

__all__ = ["l2"]

SMALL, LARGE = 3 * 32 * 32, 3 * 224 * 224


class l2:
    """The Euclidean norm: sizes, projection and steepest ascent, separately for each image."""

    @staticmethod
    def size(delta: Tensor) -> Tensor:
        """Return the norm of each image's perturbation: (N,C,H,W) -> (N,)."""
        size: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
        return size

    @staticmethod
    def project(delta: Tensor, eps: float) -> Tensor:
        """Return the nearest perturbations (N,C,H,W) whose norm is at most eps."""
        if eps < torch.finfo(delta.dtype).tiny:  # eps / eps would be 0/0
            return torch.zeros_like(delta)
        return delta * (eps / per_image(l2.size(delta), delta).clamp(min=eps))

    @staticmethod
    def ascent(gradient: Tensor) -> Tensor:
        """Return the direction (N,C,H,W) of norm 1 along which a linear function grows fastest; zero where the gradient is zero.

        Infinite entries, as of a square root at 0, count as the largest finite one, and NaN as zero: a direction of NaN would
        end an attack without a word.
        """
        # Scaled by the largest entry first: the square of a gradient of 1e-30 is not representable.
        finite = gradient.nan_to_num(0.0, 0.0, 0.0)
        largest = per_image(finite.flatten(1).abs_().amax(dim=1), gradient)
        scaled = (gradient / torch.where(largest > 0, largest, 1.0)).clamp_(-1, 1).nan_to_num_(0.0)
        size = per_image(l2.size(scaled), scaled)
        return scaled / torch.where(size > 0, size, 1.0)

    @staticmethod
    def noise(images: Tensor, eps: float, generator: torch.Generator) -> Tensor:
        """Draw perturbations (N,C,H,W) in random directions, with sizes uniform on [0, eps]."""
        shape, device = images.shape, generator.device
        direction = torch.randn(shape, generator=generator, device=device)
        radius = torch.rand(len(images), generator=generator, device=device)
        delta = l2.ascent(direction) * per_image(radius * eps, direction)
        return delta.to(images.device, images.dtype)

    @staticmethod
    def default_eps(shape: tuple[int, ...]) -> float:
        """Return the customary radius for images of shape (C,H,W): 0.5 at 3x32x32 and 3.0 at 3x224x224.

        Between the two it is linear in logarithms, outside it grows with the square root of C·H·W.
        """
        values = math.prod(shape)
        if values <= SMALL:
            return 0.5 * math.sqrt(values / SMALL)
        if values >= LARGE:
            return 3.0 * math.sqrt(values / LARGE)
        return float(0.5 * 6.0 ** (math.log(values / SMALL) / math.log(LARGE / SMALL)))
