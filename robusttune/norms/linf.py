"""The maximum norm of a perturbation, per image."""

import torch
from torch import Tensor

__all__ = ["linf"]


class linf:
    """The maximum norm: sizes, projection and steepest ascent, separately for each image."""

    @staticmethod
    def size(delta: Tensor) -> Tensor:
        """Return the largest absolute value of each image's perturbation: (N,C,H,W) -> (N,)."""
        return delta.flatten(1).abs().amax(dim=1)

    @staticmethod
    def project(delta: Tensor, eps: float) -> Tensor:
        """Return the nearest perturbations (N,C,H,W) whose norm is at most eps."""
        return delta.clamp(-eps, eps)

    @staticmethod
    def ascent(gradient: Tensor) -> Tensor:
        """Return the direction (N,C,H,W) of norm 1 along which a linear function grows fastest; zero where the gradient is zero."""
        return gradient.sign()

    @staticmethod
    def noise(images: Tensor, eps: float, generator: torch.Generator) -> Tensor:
        """Draw perturbations (N,C,H,W) uniform on [-eps, eps]."""
        delta = torch.rand(images.shape, generator=generator, device=generator.device) * (2 * eps) - eps
        return delta.to(images.device, images.dtype)

    @staticmethod
    def default_eps(shape: tuple[int, ...]) -> float:
        """Return the customary radius for images of shape (C,H,W): 8/255 up to 64 px, 4/255 from 160 px, linear between."""
        side = max(shape[-2:])
        share = min(max((side - 64) / (160 - 64), 0.0), 1.0)
        return (8 - 4 * share) / 255
