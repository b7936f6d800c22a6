"""What a corruption is: a change of images in five severities, whose chance is drawn apart from its arithmetic."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

SEVERITIES = (1, 2, 3, 4, 5)
FAMILIES = ("noise", "blur", "weather", "digital")
# Up to which shorter side, in pixels, the severities of the benchmark of that image size are used.
PRESETS = {32: 48, 64: 96}
LARGEST_PRESET = 224
PORTION = 2**20
SMALLEST = 4


@dataclass(frozen=True, eq=False)
class Corruption:
    """A natural corruption of images, in five severities.

    Attributes:
        name: of its file.
        family: one of FAMILIES.
        levels: for each preset (the side, in pixels, of the benchmark's images) the settings of the five severities.
        apply: (images (N,C,H,W) fp32 in [0,1], level, *chance) -> images; the same for the same arguments.
        draw: (image (C,H,W), level, generator, **settings) -> the chance of one image, a tuple of tensors; None where
            nothing is random.
        extra: whether it stands outside the fifteen over which the benchmark's mean is taken.

    Source: Hendrycks and Dietterich, arXiv:1903.12261; severities of their programs for CIFAR-10-C (32 px),
    Tiny-ImageNet-C (64 px) and ImageNet-C (224 px).
    """

    name: str
    family: str
    levels: Mapping[int, Sequence[Any]] = field(repr=False)
    apply: Callable[..., Tensor] = field(repr=False)
    draw: Callable[..., tuple[Tensor, ...]] | None = field(default=None, repr=False)
    extra: bool = False

    def __call__(
        self,
        images: Tensor,
        severity: Any,
        generator: torch.Generator | None = None,
        *,
        preset: int | None = None,
        **settings: Any,
    ) -> Tensor:
        """The images corrupted, in [0,1], of the same shape, type and device; those given are not changed.

        What becomes of an image depends neither on the other images nor on how many there are: chance is drawn image
        after image.

        Args:
            images: (N,C,H,W) in [0,1], of any float type; worked on in fp32.
            severity: 1 to 5, or one for each image (a list, or a tensor on the CPU).
            generator: the source of chance, on the images' device; not needed where nothing is random.
            preset: 32, 64 or 224, whose severities to use; by the image size unless given.
            settings: of this corruption's `draw`, such as `frost_dir`.

        Raises:
            ValueError: images, severity, preset or settings that do not fit.

        Example:
            >>> from robusttune import plugins
            >>> fog = plugins.find("corruptions", "fog")
            >>> fog(torch.rand(2, 3, 32, 32), severity=[1, 5], generator=torch.Generator().manual_seed(0)).shape
            torch.Size([2, 3, 32, 32])
        """
        levels = self.levels[preset_of(images, preset)]
        severities = _checked(self.name, images, severity)
        if settings and self.draw is None:
            raise ValueError(f"{self.name} takes no {', '.join(settings)}: nothing in it is random")
        if self.draw is not None and generator is None:
            raise ValueError(
                f"{self.name} is random: pass generator=torch.Generator({images.device.type!r}).manual_seed(0)"
            )
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            exact = images.float()
            chance: list[tuple[Tensor, ...]] = [()] * len(images)
            if self.draw is not None:
                pairs = zip(exact, severities, strict=True)
                chance = [self.draw(image, levels[number - 1], generator, **settings) for image, number in pairs]
            changed = torch.empty_like(exact, memory_format=torch.contiguous_format)
            for number in sorted(set(severities)):
                rows = [row for row, each in enumerate(severities) if each == number]
                for some in _portions(rows, images):
                    drawn = [torch.stack(each) for each in zip(*(chance[row] for row in some), strict=True)]
                    if len(rows) == len(images):
                        part = slice(some[0], some[-1] + 1)
                        torch.clamp(self.apply(exact[part], levels[number - 1], *drawn), 0, 1, out=changed[part])
                    else:
                        place = torch.tensor(some).to(images.device, non_blocking=True)
                        changed[place] = self.apply(exact[place], levels[number - 1], *drawn).clamp(0, 1)
            return changed.to(images.dtype)


def preset_of(images: Tensor, preset: int | None = None) -> int:
    """Whose severities fit images (N,C,H,W): 32 up to 48 px of the shorter side, 64 up to 96 px, else 224.

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
    """A generator for draws of whose number one cannot know; what was given moves on by the same step each time.

    On an accelerator it is the one given: there the state moves by the shape that is drawn, whatever the values are.
    """
    if generator.device.type != "cpu":
        return generator
    (seed,) = torch.randint(2**62, (1,), generator=generator).tolist()
    return torch.Generator().manual_seed(seed)


def _checked(name: str, images: Tensor, severity: Any) -> list[int]:
    """A severity for each image."""
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"{name} got images of shape {tuple(images.shape)} and type {images.dtype}, but (N,C,H,W) of a float type in "
            "[0,1] are needed: divide uint8 images by 255"
        )
    if min(images.shape[-2:]) < SMALLEST:
        raise ValueError(
            f"{name} got images of {images.shape[-2]}×{images.shape[-1]} px, but at least {SMALLEST} are needed"
        )
    if isinstance(severity, Tensor):
        severity = severity.tolist()
    given = list(severity) if isinstance(severity, Sequence) else [severity] * len(images)
    if len(given) != len(images) or any(number not in SEVERITIES for number in given):
        raise ValueError(
            f"severity is {severity!r}, but 1, 2, 3, 4 or 5 is needed, or one of them for each of the {len(images)} images"
        )
    return [int(number) for number in given]


def _portions(rows: list[int], images: Tensor) -> Iterator[list[int]]:
    """On the CPU as many rows at a time as keep to the caches; else all."""
    step = max(1, PORTION // images[0].numel()) if images.device.type == "cpu" else len(rows)
    return (rows[start : start + step] for start in range(0, len(rows), step))
