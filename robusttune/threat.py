"""The threat model, which bounds what an attack may change, and the loss that an attack maximises."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robusttune import plugins
from robusttune.norms import Norm, NormLike, canonical, checked_eps


class LossOf:
    """A function from images (N,C,H,W) in [0,1] to one loss per image (N,), which an attack maximises.

    Attacks of other packages need labels and logits instead.

    Attributes:
        labels: classes (N,); None if the loss is not a function of one set of labels.
        logits_of: images (N,C,H,W) -> logits (N,K); None with `labels`.
    """

    def __init__(
        self,
        per_image: Callable[[Tensor], Tensor],
        *,
        labels: Tensor | None = None,
        logits_of: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.per_image = per_image
        self.labels = labels
        self.logits_of = logits_of

    def __call__(self, images: Tensor) -> Tensor:
        return self.per_image(images)


@dataclass(frozen=True)
class ThreatModel:
    """The images that an attack may replace an image with: a ball around it, inside the pixel box [0,1].

    Args:
        norm: "l2" or "linf" (also "L2", "Linf", "inf", 2), or an object that is a `robusttune.norms.Norm`.
        eps: radius in pixel units on [0,1], before any normalisation.

    Raises:
        ValueError: the norm is unknown, or eps is negative, not a number, or above 1 for linf.

    Example:
        >>> threat = ThreatModel("Linf", eps=8 / 255)
        >>> threat.norm
        'linf'
        >>> images = torch.full((2, 1, 4, 4), 0.5)
        >>> bool((threat.project(images + 1, images) <= 0.5 + 8 / 255 + 1e-6).all())
        True
    """

    norm: NormLike
    eps: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", canonical(self.norm))
        object.__setattr__(self, "eps", checked_eps(self.eps, self.norm))

    @property
    def geometry(self) -> Norm:
        """Return the functions of the norm."""
        geometry: Norm = plugins.find("norms", self.norm)
        return geometry

    def project(self, candidates: Tensor, images: Tensor) -> Tensor:
        """Project candidates (N,C,H,W) into the ball around `images` and into the box."""
        # The images lie in the box, so clamping only shortens the perturbation and it stays in the ball.
        return (images + self.geometry.project(candidates - images, self.eps)).clamp(0, 1)

    def size(self, candidates: Tensor, images: Tensor) -> Tensor:
        """Return the distance of each candidate from its image: (N,)."""
        return self.geometry.size(candidates - images)

    def ascent(self, gradient: Tensor) -> Tensor:
        """Return the direction (N,C,H,W) of norm 1 along which a linear function with this gradient grows fastest."""
        return self.geometry.ascent(gradient)

    def start(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a random point (N,C,H,W) of the threat model for each image."""
        return self.project(images + self.geometry.noise(images, self.eps, generator), images)
