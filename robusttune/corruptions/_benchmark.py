"""Conditions under which images are judged: a corruption, how severe it is, and what makes it."""

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robusttune import plugins
from robusttune.corruptions import FAMILIES, SEVERITIES, Corruption, preset_of
from robusttune.corruptions._filters import floored
from robusttune.run.randomness import own_randomness

OTHER = "other"
SAVED_AT = 85


class Condition(NamedTuple):
    """One corruption at one severity.

    Attributes:
        name: of the corruption.
        severity: 1 to 5; None where there is only one.
        family: one of FAMILIES, or "other".
        change: (images (N,C,H,W) in [0,1]) -> corrupted images; it goes on with its chance from call to call, so that it
            does not matter how images are divided into batches.
    """

    name: str
    severity: int | None
    family: str
    change: Callable[[Tensor], Tensor]


def standard_names() -> list[str]:
    """The fifteen corruptions over which the benchmark's mean is taken, by family."""
    every = [plugins.find("corruptions", name) for name in plugins.names("corruptions")]
    return [each.name for family in FAMILIES for each in every if each.family == family and not each.extra]


def generated(
    names: Sequence[Any], severities: Sequence[int], images: Tensor, *, seed: int, jpeg_save: bool, preset: int | None
) -> list[Condition]:
    """A condition for each corruption and severity, made from the images as they come.

    Args:
        names: of corruptions, or Corruption objects, `partial`s of them, or Kornia augmentations (images -> images).
        severities: out of 1 to 5; what is no Corruption has one only.
        images: (N,C,H,W), some of those that will come.
        seed: of all chance, together with the name and the severity.
        jpeg_save: whether results go through a JPEG of quality 85, as the published ImageNet-C's files did.
        preset: whose severities to use; by the image size unless given.

    Raises:
        ValueError: unknown corruptions or severities, or none.
    """
    strange = [each for each in severities if each not in SEVERITIES]
    if strange or not severities or not names:
        raise ValueError(
            f"names={list(names)} and severities={list(severities)}, but at least one corruption and severities out of "
            "1 to 5 are needed"
        )
    titles = [_name(_own(plugins.find("corruptions", each))) for each in names]
    twice = sorted({title for title in titles if titles.count(title) > 1})
    if twice:
        raise ValueError(f"names= holds {', '.join(twice)} more than once: measure them one after the other")
    finish = _saved if jpeg_save else floored
    made = []
    for wanted in names:
        found = plugins.find("corruptions", wanted)
        own = _own(found)
        if not isinstance(own, Corruption):
            made.append(Condition(_name(found), None, OTHER, _one_by_one(found, seed, finish)))
            continue
        for severity in severities:
            chance = torch.Generator(images.device).manual_seed(zlib.crc32(f"{seed} {own.name} {severity}".encode()))
            settings: dict[str, Any] = {"severity": severity, "generator": chance, "preset": preset_of(images, preset)}
            made.append(Condition(own.name, severity, own.family, _then(partial(found, **settings), finish)))
    return made


def family_of(name: str) -> str:
    """The family of a corruption of this library, "other" for any other."""
    return plugins.find("corruptions", name).family if name in plugins.names("corruptions") else OTHER


def _then(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda images: second(first(images))


def _one_by_one(module: Any, seed: int, finish: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """An augmentation called on each image alone: what it draws for an image would else depend on the batch."""
    if not callable(module):
        raise ValueError(f"names= holds {module!r}: names of corruptions, or callables on images (N,C,H,W), are needed")
    start, done = zlib.crc32(f"{seed} {_name(module)}".encode()), 0

    def change(images: Tensor) -> Tensor:
        nonlocal done
        if isinstance(module, torch.nn.Module):
            module.to(images.device)
        changed = torch.empty_like(images)
        for number, image in enumerate(images):
            with own_randomness(start + done), torch.no_grad():
                changed[number] = module(image[None])[0]
            done += 1
        return finish(changed.clamp(0, 1))

    return change


def _saved(images: Tensor) -> Tensor:
    """Images as they are after they were stored as JPEG of quality 85."""
    stored: Tensor = plugins.find("corruptions", "jpeg_compression").apply(floored(images.float()), SAVED_AT)
    return stored


def _own(thing: Any) -> Any:
    return thing.func if isinstance(thing, partial) else thing


def _name(thing: Any) -> str:
    return thing.name if isinstance(thing, Corruption) else getattr(thing, "__name__", type(thing).__name__)
