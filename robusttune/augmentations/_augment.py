"""Random changes of training images, on their device: this library's, Kornia's, corruptions, or the user's own."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from robusttune import plugins
from robusttune.corruptions._corruption import SEVERITIES, Corruption
from robusttune.data.transforms import transforms_of
from robusttune.run.randomness import own_randomness

Augment = Callable[[Tensor], Tensor]
RANDOM_WORDS = ("random", "jitter", "augment", "augmix", "erasing", "mixup", "cutmix")
# What Kornia's and torchvision's augmentations do, by parts of their names, that is a corruption, too.
OVERLAPS = {
    "jitter": {"brightness", "contrast", "saturate"},
    "jiggle": {"brightness", "contrast", "saturate"},
    "randaugment": {"brightness", "contrast", "saturate"},
    "autoaugment": {"brightness", "contrast", "saturate"},
    "trivialaugment": {"brightness", "contrast", "saturate"},
    "augmix": {"brightness", "contrast", "saturate"},
    "photometricdistort": {"brightness", "contrast", "saturate"},
    "brightness": {"brightness"},
    "contrast": {"contrast"},
    "saturation": {"saturate"},
    "gaussiannoise": {"gaussian_noise"},
    "saltandpepper": {"impulse_noise"},
    "gaussianblur": {"gaussian_blur"},
    "motionblur": {"motion_blur"},
    "jpeg": {"jpeg_compression"},
    "elastic": {"elastic_transform"},
    "snow": {"snow"},
}


class Checked:
    """An augmentation on the images' device, where Kornia then draws too, that may not change shapes.

    Attributes:
        overlaps: the corruptions that it trains on.
    """

    def __init__(self, augment: Augment, images: Tensor) -> None:
        self.augment = augment
        self.overlaps = overlaps(augment)
        if isinstance(augment, nn.Module):
            augment.to(images.device)

    def __call__(self, images: Tensor) -> Tensor:
        """The images (N,C,H,W) changed."""
        changed = self.augment(images)
        if changed.shape != images.shape:
            raise ValueError(
                f"augment turned images of shape {tuple(images.shape)} into {tuple(changed.shape)}: it must keep the shape"
            )
        return changed


def names() -> list[str]:
    """What `augment=` may be called."""
    return ["auto", "none", *plugins.names("augmentations")]


def chosen_augment(augment: Any, images: Tensor, loader: Any = None) -> Checked | None:
    """What to do to training images (N,C,H,W) in [0,1]; None for nothing.

    Args:
        augment: a name in the folder of augmentations, "none", "auto" (nothing where the loader's transform is random
            already or cannot be seen, else "standard"), a `Corruption` or a `partial` of one (each image then draws its
            own severity, unless it is given), or any callable or Kornia module, (N,C,H,W) -> (N,C,H,W).

    Raises:
        ValueError: an unknown name.
    """
    if augment == "auto":
        steps = transforms_of(loader)
        augment = "standard" if steps and not any(map(is_random, steps)) else "none"
    if augment is None or augment == "none":
        return None
    if isinstance(augment, str) and augment in names():
        return Checked(plugins.find("augmentations", augment)(images), images)
    if isinstance(augment, Checked):
        return augment
    if _corruption(augment) is not None:
        return Checked(_Corrupting(augment), images)
    if callable(augment):
        return Checked(augment, images)
    raise ValueError(
        f"unknown augment {augment!r}: known are {', '.join(names())}; a callable or Kornia module is taken too"
    )


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


def overlaps(augment: Any, loader: Any = None) -> frozenset[str]:
    """The corruptions that are trained on with an augmentation, and with the transform of a loader, as far as one sees."""
    own: Iterable[str] | None = getattr(augment, "overlaps", None)
    corruption = _corruption(augment)
    if own is None:
        own = _guessed(augment.modules() if isinstance(augment, nn.Module) else [augment])
    return frozenset({*own, *_guessed(transforms_of(loader)), *([corruption.name] if corruption is not None else [])})


def _guessed(parts: Iterable[Any]) -> set[str]:
    """The corruptions that names of others' augmentations speak of."""
    kinds = [type(part).__name__.lower().replace("autocontrast", "") for part in parts]
    return {each for name in kinds for word, those in OVERLAPS.items() if word in name for each in those}


class _Corrupting:
    """Corruptions as an augmentation: each image draws a severity, unless it is given."""

    def __init__(self, corruption: Any) -> None:
        own = _corruption(corruption)
        assert own is not None
        self.corruption, self.overlaps = corruption, frozenset({own.name})
        self.fixed = getattr(corruption, "keywords", {}).get("severity")

    def __call__(self, images: Tensor) -> Tensor:
        severities = torch.randint(1, len(SEVERITIES) + 1, (len(images),)).tolist()
        (seed,) = torch.randint(2**62, (1,)).tolist()
        chance = torch.Generator(images.device).manual_seed(seed)
        severity = severities if self.fixed is None else self.fixed
        changed: Tensor = self.corruption(images, severity=severity, generator=chance)
        return changed


def _corruption(augment: Any) -> Corruption | None:
    own = augment.func if isinstance(augment, partial) else augment
    return own if isinstance(own, Corruption) else None
