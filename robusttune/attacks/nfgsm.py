"""N-FGSM: one gradient step from strong noise, for training only."""

import torch
from torch import Tensor

from robusttune.attacks import LossOf, ThreatModel, declares, differentiable, gradient_toward

__all__ = ["nfgsm"]


@declares(bounded=False, differentiates_once=True)
def nfgsm(
    loss_of: LossOf,
    images: Tensor,
    threat: ThreatModel,
    *,
    generator: torch.Generator,
    noise: float = 2.0,
    step: float = 1.0,
) -> Tensor:
    """Take one gradient step from noisy images; the results (N,C,H,W) in [0,1] may be `noise + step` times eps away.

    They are for training, at the cost of one gradient. Leaving the ball keeps training from overfitting to the single
    step, but the results say nothing about a model's robustness, so the attack declares `bounded=False`.

    Args:
        loss_of: images -> one loss per image (N,); the images do not influence each other.
        images: (N,C,H,W) in [0,1]; not changed.
        threat: gives the norm and eps.
        generator: source of the noise.
        noise: its largest size in the threat's norm, as a multiple of eps.
        step: length of the step in the threat's norm, as a multiple of eps.

    Source: de Jorge et al., arXiv:2202.01181, for linf; as in the authors' code, noisy images are clipped to the box
    before their gradient is taken. For other norms, the noise is drawn by the norm from the larger ball, which
    is not in the paper; for l2 it is a random direction and a size uniform on [0, noise·eps].

    Example:
        >>> images = torch.full((2, 1, 4, 4), 0.5)
        >>> brighter = nfgsm(LossOf(lambda x: x.sum((1, 2, 3))), images, ThreatModel("linf", 0.1),
        ...                  generator=torch.Generator())
        >>> bool((brighter >= 0.5 - 0.1).all() and (brighter <= 0.5 + 0.3).all())
        True
    """
    with differentiable():
        images = images.detach()
        noisy = (images + threat.geometry.noise(images, noise * threat.eps, generator)).clamp(0, 1).requires_grad_()
        gradient = gradient_toward(noisy, loss_of(noisy))
        return (noisy.detach() + step * threat.eps * threat.ascent(gradient)).clamp(0, 1)
