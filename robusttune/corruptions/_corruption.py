"""The contract of corruptions: a change of images in five severities, whose random numbers are drawn separately."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

SEVERITIES = (1, 2, 3, 4, 5)
Family: TypeAlias = Literal["noise", "blur", "weather", "digital"]
FAMILIES: tuple[Family, ...] = ("noise", "blur", "weather", "digital")
# The largest shorter side, in pixels, of images for which a preset is used.
PRESETS = {32: 48, 64: 96}
LARGEST_PRESET = 224
PORTION = 2**20
SMALLEST = 4
OVERSHOOT = 0.25  # values beyond [0,1] that bicubic resizing may leave, as in `data.pixels`


@dataclass(frozen=True, eq=False)
class Corruption:
    """A natural corruption of images in five severities, which a file in `corruptions/` exports.

    Random numbers are drawn image after image, apart from the arithmetic, so that the result for an image depends neither
    on the other images nor on the batch size.

    Attributes:
        name: the name of the file.
        family: one of FAMILIES.
        levels: the settings of the five severities, by preset (the side in pixels of the benchmark's images).
            A level may have any type: only `apply` and `draw` read it.
        apply: (images (N,C,H,W) fp32 in [0,1], level, *random numbers) -> images, deterministic; the random numbers of all
            images are stacked. The result is clamped to [0,1] afterwards.
        draw: (image (C,H,W), level, generator, **settings) -> the random numbers of one image, a tuple of tensors; None
            if nothing is random.
        extra: True unless it is one of the fifteen over which the benchmark's mean is taken.

    Source: Hendrycks and Dietterich, arXiv:1903.12261; severities of their programs for CIFAR-10-C (32 px),
    Tiny-ImageNet-C (64 px) and ImageNet-C (224 px).
    """

    name: str
    family: Family
    levels: Mapping[int, Sequence[Any]] = field(repr=False)
    apply: Callable[..., Tensor] = field(repr=False)
    draw: Callable[..., tuple[Tensor, ...]] | None = field(default=None, repr=False)
    extra: bool = False

    def __call__(
        self,
        images: Tensor,
        severity: int | Sequence[int] | Tensor,
        generator: torch.Generator | None = None,
        *,
        preset: int | None = None,
        **settings: object,
    ) -> Tensor:
        """Return the images corrupted, in [0,1], with the same shape, type and device.

        Args:
            images: (N,C,H,W) in [0,1], of any float type; computed with in fp32, and not changed.
            severity: 1 to 5, or one for each image (a list, or a tensor on the CPU).
            generator: source of all random numbers, on the images' device; not needed if nothing is random.
            preset: 32, 64 or 224, the benchmark whose severities are used; None to choose by the image size.
            settings: the settings of this corruption's `draw`, such as `frost_dir`.

        Raises:
            ValueError: the images, severity, preset or settings are not allowed.

        Example:
            >>> from robusttune import plugins
            >>> fog = plugins.find("corruptions", "fog")
            >>> fog(torch.rand(2, 3, 32, 32), severity=[1, 5], generator=torch.Generator().manual_seed(0)).shape
            torch.Size([2, 3, 32, 32])
        """
        levels = self.levels[preset_of(images, preset)]
        severities = _checked_severities(self.name, images, severity)
        if settings and self.draw is None:
            raise ValueError(f"{self.name} takes no {', '.join(settings)}: nothing in it is random")
        if self.draw is not None and generator is None:
            raise ValueError(
                f"{self.name} is random: pass generator=torch.Generator({images.device.type!r}).manual_seed(0)"
            )
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            exact = images.float()
            pairs = zip(exact, severities, strict=True)
            draw = self.draw or _nothing
            draws = [draw(image, levels[number - 1], generator, **settings) for image, number in pairs]
            return self._corrupted(exact, severities, levels, draws).to(images.dtype)

    def _corrupted(
        self, images: Tensor, severities: list[int], levels: Sequence[Any], draws: list[tuple[Tensor, ...]]
    ) -> Tensor:
        """Apply the corruption to images (N,C,H,W) of fp32, all those of one severity together."""
        changed = torch.empty_like(images, memory_format=torch.contiguous_format)
        for severity in sorted(set(severities)):
            rows = [row for row, number in enumerate(severities) if number == severity]
            for portion in _portions(rows, images):
                drawn = [torch.stack(tensors) for tensors in zip(*(draws[row] for row in portion), strict=True)]
                if len(rows) == len(images):  # a slice needs no copies
                    part = slice(portion[0], portion[-1] + 1)
                    torch.clamp(self.apply(images[part], levels[severity - 1], *drawn), 0, 1, out=changed[part])
                else:
                    index = torch.tensor(portion).to(images.device, non_blocking=True)
                    changed[index] = self.apply(images[index], levels[severity - 1], *drawn).clamp(0, 1)
        return changed


def _nothing(image: Tensor, level: object, generator: torch.Generator | None) -> tuple[Tensor, ...]:
    """Draw no random numbers."""
    return ()


def preset_of(images: Tensor, preset: int | None = None) -> int:
    """Return the preset for images (N,C,H,W): 32 up to 48 px of the shorter side, 64 up to 96 px, else 224.

    Raises:
        ValueError: there is no such preset.
    """
    known = [*PRESETS, LARGEST_PRESET]
    if preset is None:
        side = min(images.shape[-2:])
        return next((known for known, largest in PRESETS.items() if side <= largest), LARGEST_PRESET)
    if preset not in known:
        raise ValueError(f"preset is {preset!r}, but it must be one of {', '.join(map(str, known))}")
    return preset


def forked(generator: torch.Generator) -> torch.Generator:
    """Return a child generator for a data-dependent number of draws, so that the parent advances by a fixed amount.

    On an accelerator it is the parent: there the state advances by the shape of the draw, whatever the values.
    """
    if generator.device.type != "cpu":
        return generator
    (seed,) = torch.randint(2**62, (1,), generator=generator).tolist()
    return torch.Generator().manual_seed(seed)


def _checked_severities(name: str, images: Tensor, severity: int | Sequence[int] | Tensor) -> list[int]:
    """Return the severity of each image.

    Raises:
        ValueError: the images or the severity are not allowed.
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"{name} got images of shape {tuple(images.shape)} and type {images.dtype}, but (N,C,H,W) of a float type in "
            "[0,1] are needed: divide uint8 images by 255"
        )
    if min(images.shape[-2:]) < SMALLEST:
        raise ValueError(
            f"{name} got images of {images.shape[-2]}×{images.shape[-1]} px, but at least {SMALLEST} are needed"
        )
    _check_range(name, images)
    if hasattr(severity, "tolist"):  # tensors, and arrays of numpy
        severity = severity.tolist()
    severities = list(severity) if isinstance(severity, Sequence) else [severity] * len(images)
    if len(severities) != len(images) or any(number not in SEVERITIES for number in severities):
        raise ValueError(
            f"severity is {severity!r}, but 1, 2, 3, 4 or 5 is needed, or one of them for each of the {len(images)} images"
        )
    return [int(number) for number in severities]


def _check_range(name: str, images: Tensor) -> None:
    """Raise a ValueError for images that are no pixels on [0,1]; values on an accelerator are not read, as that waits."""
    if images.device.type != "cpu" or not images.numel():
        return
    low, high = (float(bound) for bound in images.aminmax())
    if not (low >= -OVERSHOOT and high <= 1 + OVERSHOOT):
        raise ValueError(
            f"{name} got images that span [{low:.3g}, {high:.3g}], but pixels on [0, 1] are needed: divide levels from 0 to 255 by 255, "
            "corrupt images before their Normalize, and look for NaN"
        )


def _portions(rows: list[int], images: Tensor) -> Iterator[list[int]]:
    """Divide rows into parts that fit the caches of a CPU; on an accelerator all rows are one part."""
    step = max(1, PORTION // images[0].numel()) if images.device.type == "cpu" else len(rows)
    return (rows[start : start + step] for start in range(0, len(rows), step))
