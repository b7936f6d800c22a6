"""Attacks that search a threat model for images with a high loss, one file each: a function, see `Attack`."""

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from robusttune.attacks._results import attacked as attacked
from robusttune.model.borrowing import differentiable
from robusttune.threat import LossOf, ThreatModel

__all__ = [
    "Attack",
    "AttackLike",
    "LossOf",
    "NoGradientError",
    "ThreatModel",
    "attacked",
    "declares",
    "differentiable",
    "differentiates_once",
    "gradient_toward",
    "has_own_loss",
    "stays_in_ball",
]

Function = TypeVar("Function", bound=Callable[..., Tensor])


class Attack(Protocol):
    """The contract of a file in `attacks/`: a function from images to images with a higher loss.

    - It searches inside the threat model, and works inside `differentiable()`, as callers may have switched gradients
      off.
    - Its gradients come from `gradient_toward`, which says so where none reaches the images.
    - It treats each image separately, and writes into no argument.
    - All random numbers come from `generator`.
    - The result has no gradient, and the shape, type and memory format of the images.
    - Settings are keyword arguments with defaults; users change them with `functools.partial`. `steps`,
      `step_size` and `random_start` have these names where an attack has such settings.
    - `declares` states what else callers must know.
    """

    def __call__(
        self, loss_of: LossOf, images: Tensor, threat: ThreatModel, /, *, generator: torch.Generator
    ) -> Tensor:
        """Return images (N,C,H,W) in [0,1] whose loss is high.

        Args:
            loss_of: images -> one loss per image (N,); differentiable.
            images: (N,C,H,W) in [0,1].
            threat: the ball around each image, and the pixel box.
            generator: source of all random numbers.
        """


# An attack as users write it: the name of a file, or a function.
AttackLike: TypeAlias = str | Attack


class NoGradientError(ValueError, RuntimeError):  # torch raises a RuntimeError here
    """A loss of which no gradient reaches the images, so that attacks by gradients cannot search."""

    def __init__(self) -> None:
        super().__init__(
            "no gradient of the loss reaches the images, so an attack by gradients would find nothing: the model, or a part "
            "of it, runs under torch.no_grad(), detaches, or computes outside of torch; let gradients through (frozen "
            "weights need only requires_grad_(False)), or measure with an attack that needs none, such as torchattacks' Square"
        )


def gradient_toward(
    images: Tensor, outputs: Tensor, slope: Tensor | None = None, *, retain_graph: bool = False
) -> Tensor:
    """Return the gradient (N,C,H,W) of outputs, such as losses (N,), toward images that require a gradient.

    Args:
        images: (N,C,H,W), from which the outputs were computed.
        outputs: a tensor of any shape; its sum is differentiated.
        slope: weights of that sum, in the shape of the outputs; None for 1.
        retain_graph: whether to differentiate the same outputs again later.

    Raises:
        NoGradientError: the losses do not depend on the images in a way that can be differentiated.

    Example:
        >>> images = torch.ones(2, 1, 1, 1, requires_grad=True)
        >>> gradient_toward(images, (3 * images).sum((1, 2, 3))).flatten().tolist()
        [3.0, 3.0]
    """
    if not outputs.requires_grad:
        raise NoGradientError
    total = outputs.sum() if slope is None else outputs
    gradient = torch.autograd.grad(total, images, slope, retain_graph=retain_graph, allow_unused=True)[0]
    if gradient is None:
        raise NoGradientError
    return gradient


def declares(
    *, bounded: bool = True, differentiates_once: bool = False, own_loss: bool = False
) -> Callable[[Function], Function]:
    """Decorate an attack with facts that callers must know, as attributes of these names.

    Args:
        bounded: whether all images that it returns lie in the threat model. Evaluations refuse an attack that is not.
        differentiates_once: whether it takes at most one first derivative of each forward pass. Only then may its
            passes be replayed as CUDA graphs.
        own_loss: whether it maximises a loss of its own, of the labels and logits of `loss_of`, whose value it never uses.

    Example:
        >>> @declares(bounded=False)
        ... def brighter(loss_of, images, threat, *, generator):
        ...     return images + 1
        >>> brighter.bounded, stays_in_ball(partial(brighter)), differentiates_once(brighter)
        (False, False, False)
    """

    def decorated(attack: Function) -> Function:
        vars(attack).update(bounded=bounded, differentiates_once=differentiates_once, own_loss=own_loss)
        return attack

    return decorated


def stays_in_ball(attack: object) -> bool:
    """Return True unless the attack declares that images which it returns may leave the ball."""
    return bool(getattr(_function(attack), "bounded", True))


def differentiates_once(attack: object) -> bool:
    """Return True if the attack declares that it takes at most one first derivative of each forward pass."""
    return bool(getattr(_function(attack), "differentiates_once", False))


def has_own_loss(attack: object) -> bool:
    """Return True if the attack declares that it maximises a loss of its own, so that another loss changes nothing."""
    return bool(getattr(_function(attack), "own_loss", False))


def _function(attack: object) -> object:
    """Return the function inside of `functools.partial`s."""
    while isinstance(attack, partial):
        attack = attack.func
    return attack
