"""Conditions of a corruption benchmark: the (corruption, severity) pairs, each with the function that applies it."""

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from robusttune import plugins
from robusttune.corruptions import FAMILIES, SEVERITIES, Corruption, preset_of
from robusttune.corruptions._filters import floored
from robusttune.run.randomness import own_randomness

# A corruption as users write it: a name, a Corruption, a `partial` of one, or a function of images such as Kornia's.
CorruptionLike: TypeAlias = str | Callable[..., Tensor]

OTHER = "other"
SAVED_AT = 85


class Condition(NamedTuple):
    """One corruption at one severity.

    Attributes:
        name: the name of the corruption.
        severity: 1 to 5; None if there is only one.
        family: one of FAMILIES, or "other".
        change: (images (N,C,H,W) in [0,1]) -> corrupted images. Its random numbers continue from call to call, so that
            the result does not depend on how images are divided into batches.
    """

    name: str
    severity: int | None
    family: str
    change: Callable[[Tensor], Tensor]


def standard_names() -> list[str]:
    """List the fifteen corruptions over which the benchmark's mean is taken, by family."""
    corruptions = [plugins.find("corruptions", name) for name in plugins.names("corruptions")]
    return [item.name for family in FAMILIES for item in corruptions if item.family == family and not item.extra]


def generated(
    names: Sequence[CorruptionLike],
    severities: Sequence[int],
    images: Tensor,
    *,
    seed: int,
    jpeg_save: bool,
    preset: int | None,
) -> list[Condition]:
    """Return a condition for each corruption and severity, which corrupts images when they are read.

    Args:
        names: names of corruptions, or Corruption objects, `partial`s of them, or Kornia augmentations (images -> images).
        severities: out of 1 to 5; ignored by callables that are no Corruption.
        images: (N,C,H,W), a batch of the images to corrupt.
        seed: the seed of all random numbers, together with the name and the severity.
        jpeg_save: whether results go through a JPEG of quality 85, as the published ImageNet-C's files did.
        preset: the benchmark whose severities are used; None to choose by the image size.

    Raises:
        ValueError: a corruption or severity is unknown or missing, or a corruption or severity is named twice.
    """
    unknown = [severity for severity in severities if severity not in SEVERITIES]
    if unknown or not len(severities) or not len(names):  # an array of numpy is neither true nor false
        raise ValueError(
            f"names={list(names)} and severities={list(severities)}, but at least one corruption and severities out of "
            "1 to 5 are needed"
        )
    if len(set(severities)) < len(severities):
        raise ValueError(
            f"severities={list(severities)} holds one more than once, but each counts once: name each once"
        )
    chosen: list[Callable[..., Tensor]] = [plugins.find("corruptions", name) for name in names]
    titles = [_name(_inner(change)) for change in chosen]
    twice = sorted({title for title in titles if titles.count(title) > 1})
    if twice:
        raise ValueError(f"names= holds {', '.join(twice)} more than once: measure them one after the other")
    finish = _saved if jpeg_save else floored
    conditions = []
    for change in chosen:
        corruption = _inner(change)
        if not isinstance(corruption, Corruption):
            conditions.append(Condition(_name(change), None, OTHER, _one_by_one(change, seed, finish)))
            continue
        for severity in severities:
            generator = _generator(images.device, f"{seed} {corruption.name} {severity}")
            corrupted = partial(change, severity=severity, generator=generator, preset=preset_of(images, preset))
            conditions.append(Condition(corruption.name, severity, corruption.family, _then(corrupted, finish)))
    return conditions


def _generator(device: torch.device, label: str) -> torch.Generator:
    """Return a generator whose seed follows from a label."""
    return torch.Generator(device).manual_seed(zlib.crc32(label.encode()))


def family_of(name: str) -> str:
    """Return the family of a corruption of this library; "other" for any other."""
    return plugins.find("corruptions", name).family if name in plugins.names("corruptions") else OTHER


def _then(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda images: second(first(images))


def _one_by_one(
    module: Callable[[Tensor], Tensor], seed: int, finish: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    """Call an augmentation on each image alone, so that its random numbers for an image do not depend on the batch."""
    if not callable(module):
        raise ValueError(f"names= holds {module!r}: names of corruptions, or callables on images (N,C,H,W), are needed")
    first_seed, done = zlib.crc32(f"{seed} {_name(module)}".encode()), 0

    def change(images: Tensor) -> Tensor:
        nonlocal done
        if isinstance(module, torch.nn.Module):
            module.to(images.device)
        changed = torch.empty_like(images)
        for number, image in enumerate(images):
            with own_randomness(first_seed + done), torch.no_grad():
                changed[number] = module(image[None])[0]
            done += 1
        return finish(changed.clamp(0, 1))

    return change


def _saved(images: Tensor) -> Tensor:
    """Return the images after storing them as JPEG of quality 85."""
    return plugins.find("corruptions", "jpeg_compression").apply(floored(images.float()), SAVED_AT)


def _inner(change: object) -> object:
    """Return the function inside of a `partial`, and anything else unchanged."""
    return change.func if isinstance(change, partial) else change


def _name(change: object) -> str:
    return change.name if isinstance(change, Corruption) else getattr(change, "__name__", type(change).__name__)
