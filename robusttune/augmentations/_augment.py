"""Choice and use of augmentations: this library's, Kornia's, corruptions, or a user's."""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn

from robusttune import plugins
from robusttune.augmentations import Augment, AugmentLike
from robusttune.corruptions import SEVERITIES, Corruption
from robusttune.data.transforms import transforms_of
from robusttune.model.devices import check_module
from robusttune.run.randomness import own_randomness
from robusttune.types import Loader, says, shown

RANDOM_WORDS = ("random", "jitter", "augment", "augmix", "erasing", "mixup", "cutmix")
# The corruptions that Kornia's and torchvision's augmentations contain, by parts of the augmentations' names.
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
    """An augmentation that runs on the images' device and is checked to keep the shape.

    A module is moved to the device. Kornia still draws its random numbers on the CPU, as it needs them there.

    Args:
        augment: the augmentation.
        images: (N,C,H,W), a batch of the training images.
        build: builds the augmentation for images of another size; None if it is the same for all sizes.

    Attributes:
        overlaps: the corruptions that it trains on.
    """

    def __init__(self, augment: Augment, images: Tensor, build: Callable[[Tensor], Augment] | None = None) -> None:
        self.augment, self.build = augment, build
        self.overlaps = overlaps(augment)
        if isinstance(augment, nn.Module):
            check_module(augment, "augment")
            _placed(augment, images.device)
        self._by_size = {images.shape[1:]: augment}

    def __call__(self, images: Tensor) -> Tensor:
        """Return the images (N,C,H,W) augmented.

        Raises:
            ValueError: the augmentation changed the shape.
        """
        try:
            changed = self._of_size(images)(images)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a user's function raises
            raise ValueError(
                f"augment={shown(self.augment)} raised {type(error).__name__} on images of shape {tuple(images.shape)}: {error}"
            ) from error
        if not isinstance(changed, Tensor):
            raise ValueError(f"augment returned {shown(changed)}, but images (N,C,H,W) are needed")
        if changed.shape != images.shape:
            raise ValueError(
                f"augment turned images of shape {tuple(images.shape)} into {tuple(changed.shape)}: it must keep the shape"
            )
        return changed

    def _of_size(self, images: Tensor) -> Augment:
        """Return the augmentation for images of this size."""
        if self.build is None:
            return self.augment
        if images.shape[1:] not in self._by_size:
            built = self.build(images)
            self._by_size[images.shape[1:]] = _placed(built, images.device) if isinstance(built, nn.Module) else built
        return self._by_size[images.shape[1:]]


def _placed(augment: nn.Module, device: torch.device) -> nn.Module:
    """Move an augmentation to a device; Kornia would draw there, too, and wait for the numbers to come back."""
    augment.to(device)
    for module in augment.modules():
        draw_on: Callable[[torch.device, torch.dtype], None] | None = getattr(module, "set_rng_device_and_dtype", None)
        if draw_on is not None:
            draw_on(torch.device("cpu"), torch.float32)
    return augment


def names() -> list[str]:
    """List the names that `augment=` may have."""
    return ["auto", "none", *plugins.names("augmentations")]


def chosen_augment(augment: AugmentLike, images: Tensor, loader: Loader | None = None) -> Checked | None:
    """Return the augmentation of training images; None for no augmentation.

    Args:
        augment: the name of a file; "none" or None; "auto" ("standard", or no augmentation if the loader's transform is
            random already or cannot be read); a `Corruption` or a `partial` of one (each image then draws its severity,
            unless the `partial` sets it); or any function or Kornia module, (N,C,H,W) -> (N,C,H,W).
        images: (N,C,H,W) in [0,1], a batch of the training images.
        loader: the loader of the training images, for "auto".

    Raises:
        ValueError: the name is unknown.
    """
    if says(augment, "auto"):
        steps = transforms_of(loader)
        augment = "standard" if steps and not any(map(is_random, steps)) else "none"
    if augment is None or says(augment, "none"):
        return None
    if isinstance(augment, str) and augment in names():
        build = plugins.find("augmentations", augment)
        return Checked(build(images), images, build)
    if isinstance(augment, Checked):
        return augment
    if callable(augment):
        corruption = _corruption(augment)
        return Checked(augment if corruption is None else _Corrupting(augment, corruption), images)
    raise ValueError(
        f"unknown augment {shown(augment)}: known are {', '.join(names())}; or pass a callable or Kornia module"
    )


def applied(augment: Augment | None, images: Tensor, generator: torch.Generator) -> Tensor:
    """Augment images (N,C,H,W), clamped to [0,1] and without gradient.

    The global random states, which Kornia draws from, are seeded by `generator` and restored.
    """
    if augment is None:
        return images
    seed = int(torch.randint(2**31, (1,), generator=generator))
    # Not in a short format: images would be rounded, and CUDA copies no rows of one format into another.
    with own_randomness(seed), torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        return augment(images).clamp(0, 1)


def is_random(transform: object) -> bool:
    """Return True if a transform's name says that it is random, or if it is a function, which may be random."""
    name = type(transform).__name__.lower()
    return name in ("function", "method", "partial", "lambda") or any(word in name for word in RANDOM_WORDS)


def overlaps(augment: object, loader: Loader | None = None) -> frozenset[str]:
    """Return the corruptions that an augmentation and the transform of a loader contain, as far as their names show."""
    declared: Iterable[str] | None = getattr(augment, "overlaps", None)
    corruption = _corruption(augment)
    if declared is None:
        declared = _guessed(augment.modules() if isinstance(augment, nn.Module) else [augment])
    return frozenset(
        {*declared, *_guessed(transforms_of(loader)), *([corruption.name] if corruption is not None else [])}
    )


def _guessed(parts: Iterable[object]) -> set[str]:
    """Return the corruptions that the names of other packages' augmentations contain."""
    kinds = [type(part).__name__.lower().replace("autocontrast", "") for part in parts]
    return {corruption for name in kinds for word, names in OVERLAPS.items() if word in name for corruption in names}


class _Corrupting:
    """A corruption as an augmentation: each image draws its severity, unless a `partial` sets it."""

    def __init__(self, corrupt: Callable[..., Tensor], corruption: Corruption) -> None:
        self.corrupt, self.overlaps = corrupt, frozenset({corruption.name})
        self.fixed = corrupt.keywords.get("severity") if isinstance(corrupt, partial) else None

    def __call__(self, images: Tensor) -> Tensor:
        severities = torch.randint(1, len(SEVERITIES) + 1, (len(images),)).tolist()
        (seed,) = torch.randint(2**62, (1,)).tolist()
        generator = torch.Generator(images.device).manual_seed(seed)
        severity = severities if self.fixed is None else self.fixed
        return self.corrupt(images, severity=severity, generator=generator)


def _corruption(augment: object) -> Corruption | None:
    """Return the Corruption that this is, or is a `partial` of; None for anything else."""
    inner = augment.func if isinstance(augment, partial) else augment
    return inner if isinstance(inner, Corruption) else None
