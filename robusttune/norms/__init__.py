"""Norms that measure perturbations of images, one file each: a class of five static functions, see `Norm`."""

from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from robusttune.norms._names import canonical, checked_eps, default_eps, radii

__all__ = ["Norm", "NormLike", "canonical", "checked_eps", "default_eps", "per_image", "radii"]


class Norm(Protocol):
    """The contract of a file in `norms/`: the geometry of one norm, as static functions of a class.

    Every function treats each image separately, keeps shapes, types and devices, and writes into no argument. The ball
    has to be convex, and has to contain a perturbation if it contains a larger one of the same signs, so that clamping
    to the box [0,1] never leaves the ball.
    """

    def size(self, delta: Tensor) -> Tensor:
        """Return the norm of each image's perturbation: (N,C,H,W) -> (N,)."""

    def project(self, delta: Tensor, eps: float) -> Tensor:
        """Return the nearest perturbations (N,C,H,W), in Euclidean distance, whose norm is at most eps."""

    def ascent(self, gradient: Tensor) -> Tensor:
        """Return the direction (N,C,H,W) of norm 1 along which a linear function with this gradient grows fastest.

        Where the gradient is zero, the direction is zero.
        """

    def noise(self, images: Tensor, eps: float, generator: torch.Generator) -> Tensor:
        """Return random perturbations of norm at most eps, with the shape (N,C,H,W), type and device of the images."""

    def default_eps(self, shape: tuple[int, ...]) -> float:
        """Return the customary radius for images of shape (C,H,W), in pixel units on [0,1]."""


# A norm as users write it: a name ("l2", "Linf"), a number (2, inf), or an object.
NormLike: TypeAlias = str | int | float | Norm


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """Reshape one value per image (N,) to (N,1,1,1), or as many dimensions as `like` (N,…) has, for broadcasting."""
    return values.reshape(-1, *[1] * (like.dim() - 1))
