"""Random changes of training images, on their device, by Kornia."""

from collections.abc import Callable
from typing import Any

import torch
from kornia import augmentation as kornia
from torch import Tensor, nn

from robusttune.modes import own_randomness
from robusttune.pixels import transforms_of

Augment = Callable[[Tensor], Tensor]
RANDOM_WORDS = ("random", "jitter", "augment", "augmix", "erasing", "mixup", "cutmix")
NAMES = ("auto", "standard", "none")
LARGE_SIDE = 160


def chosen_augment(augment: Any, images: Tensor, loader: Any = None) -> Augment | None:
    """What to do to training images (N,C,H,W) in [0,1]; None for nothing.

    Args:
        augment: "standard" (crop and flip; above 160 px resized crop, flip and light jitter), "none", "auto" (nothing
            where the loader's transform is random already or cannot be seen, else "standard"), or any callable or
            Kornia module, (N,C,H,W) -> (N,C,H,W).

    Raises:
        ValueError: an unknown name.
    """
    if augment is None or augment == "none":
        return None
    if augment == "auto":
        steps = transforms_of(loader)
        return _checked(standard(images), images) if steps and not any(map(is_random, steps)) else None
    if augment == "standard":
        return _checked(standard(images), images)
    if callable(augment):
        return _checked(augment, images)
    raise ValueError(
        f"unknown augment {augment!r}: known are {', '.join(NAMES)}; a callable or Kornia module is taken too"
    )


def standard(images: Tensor) -> nn.Module:
    """Crop and flip for small images; resized crop, flip and light jitter for large ones."""
    height, width = images.shape[-2:]
    flip = kornia.RandomHorizontalFlip(p=0.5)
    if min(height, width) < LARGE_SIDE:
        crop = kornia.RandomCrop((height, width), padding=(width // 8, height // 8), p=1.0)
        return nn.Sequential(crop, flip)
    crop = kornia.RandomResizedCrop((height, width), scale=(0.25, 1.0), p=1.0)
    jitter = kornia.ColorJiggle(0.1, 0.1, 0.1, 0.0, p=0.5)
    return nn.Sequential(crop, flip, jitter) if images.shape[1] == 3 else nn.Sequential(crop, flip)


def applied(augment: Augment | None, images: Tensor, generator: torch.Generator) -> Tensor:
    """The images changed at random, in [0,1], without gradient; global random states, which Kornia draws from, stay."""
    if augment is None:
        return images
    seed = int(torch.randint(2**31, (1,), generator=generator))
    with own_randomness(seed), torch.no_grad():
        return augment(images).clamp(0, 1)


def is_random(transform: Any) -> bool:
    """Whether a transform's name says that it draws at random, or it is a function, of which one cannot tell."""
    name = type(transform).__name__.lower()
    return name in ("function", "method", "partial", "lambda") or any(word in name for word in RANDOM_WORDS)


def _checked(augment: Augment, images: Tensor) -> Augment:
    """The augmentation on the images' device, where Kornia then draws too; it may not change shapes."""
    if isinstance(augment, nn.Module):
        augment.to(images.device)

    def kept_shape(images: Tensor) -> Tensor:
        changed = augment(images)
        if changed.shape != images.shape:
            raise ValueError(
                f"augment turned images of shape {tuple(images.shape)} into {tuple(changed.shape)}: it must keep the shape"
            )
        return changed

    return kept_shape
