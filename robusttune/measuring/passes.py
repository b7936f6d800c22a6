"""The passes through the model that an evaluation is expected to take, for a clock and for an estimate."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from robusttune.attacks import Attack
from robusttune.data.loaders import length_of
from robusttune.data.pixels import Pixels
from robusttune.data.splits import FirstImages
from robusttune.data.unlabeled import Labelled
from robusttune.measuring.clock import Part
from robusttune.measuring.subject import Subject
from robusttune.measuring.tally import Tally
from robusttune.run import distributed
from robusttune.threat import ThreatModel
from robusttune.types import Loader

Function = TypeVar("Function", bound=Callable[..., object])

SIDE = 16  # of the stand-in's images: the number of passes does not depend on the size


class Passes(NamedTuple):
    """The passes that an evaluation takes for each image, if the model is right and is never fooled.

    Attributes:
        forward, backward: passes for each image; a backward pass goes to the image alone.
        exact: False for attacks, which leave out images that are fooled, and so take fewer passes.
        images: the number of images that the evaluation uses; None for all of the loader's.
        once: forward passes that are taken once, whatever the number of images.
        beside: work beside the model, a function of images (N,C,H,W), such as making corruptions; None for none that
            counts.
        attacks: short versions of the attacks, each with the passes of the long one, where their steps take more time than
            those of APGD.
    """

    forward: float
    backward: float = 0.0
    exact: bool = True
    images: int | None = None
    once: float = 0.0
    beside: Callable[[Tensor], object] | None = None
    attacks: "Sequence[tuple[Attack, Passes]]" = ()

    def plus(self, other: "Passes", times: float = 1.0) -> "Passes":
        """Return the sum of these passes and `times` the other ones."""
        forward, backward = self.forward + times * other.forward, self.backward + times * other.backward
        return self._replace(forward=forward, backward=backward, exact=self.exact and other.exact)


def takes(passes: Callable[..., Passes | None]) -> Callable[[Function], Function]:
    """Decorate an evaluation with the function that computes its passes.

    Args:
        passes: a function of the subject and of those settings of the evaluation that it names as parameters; None if
            the number of passes is not known.
    """

    def decorated(evaluation: Function) -> Function:
        vars(evaluation)["passes"] = passes
        return evaluation

    return decorated


def attacks_at(threats: Callable[..., Sequence[ThreatModel]]) -> Callable[[Function], Function]:
    """Decorate an evaluation with a function that lists the adversaries that it attacks with, so that a gate knows before.

    Args:
        threats: a function of the subject and of those settings of the evaluation that it names as parameters.
    """

    def decorated(evaluation: Function) -> Function:
        vars(evaluation)["attacks_at"] = threats
        return evaluation

    return decorated


def threats_of(evaluation: object, subject: Subject) -> Sequence[ThreatModel] | None:
    """Return the adversaries that an evaluation attacks with; None if it does not say them."""
    threats: Sequence[ThreatModel] | None = _declared(evaluation, "attacks_at", subject)
    return threats


def checked_by(check: Callable[..., None]) -> Callable[[Function], Function]:
    """Decorate an evaluation with a check that is made before any evaluation begins, so that hours of others are not lost.

    Args:
        check: a function of the subject and of those settings of the evaluation that it names as parameters; it raises what
            the evaluation would raise.
    """

    def decorated(evaluation: Function) -> Function:
        vars(evaluation)["checked_by"] = check
        return evaluation

    return decorated


def check_evaluation(evaluation: object, subject: Subject) -> None:
    """Make the check that an evaluation was decorated with, if there is one.

    Raises:
        ValueError: the evaluation cannot measure this subject, or its settings do not fit.
    """
    _declared(evaluation, "checked_by", subject)


def passes_of(evaluation: object, subject: Subject) -> Passes | None:
    """Return the passes of an evaluation, with its settings and their defaults; None if it does not say them.

    Raises:
        ValueError: a setting does not fit.
    """
    try:
        passes: Passes | None = _declared(evaluation, "passes", subject)
    except _NotKnownError:
        return None
    return passes


def _declared(evaluation: object, what: str, subject: Subject) -> Any:
    """Call what an evaluation declares, with the subject and the evaluation's settings; None if it declares nothing."""
    settings: dict[str, object] = {}
    while isinstance(evaluation, partial):
        settings = {**evaluation.keywords, **settings}
        evaluation = evaluation.func
    declared: Callable[..., object] | None = getattr(evaluation, what, None)
    if declared is None or not callable(evaluation):
        return None
    defaults = {name: each.default for name, each in inspect.signature(evaluation).parameters.items()}
    _, *wanted = inspect.signature(declared).parameters
    return declared(subject, **{name: settings.get(name, defaults[name]) for name in wanted})


def part_of(title: str, evaluation: object, subject: Subject, images: int | None) -> Part:
    """Describe an evaluation of the loader's images to a clock."""
    if images is None:
        return Part(title)
    try:
        passes = passes_of(evaluation, subject)
    except (ValueError, TypeError):  # settings that do not fit, which the evaluation itself refuses
        passes = None
    if passes is None:
        return Part(title, images)
    used = images if passes.images is None else min(images, passes.images)
    return Part(title, used, passes.forward + passes.backward, passes.once)


def attack_passes(subject: Subject, attack: Attack, threat: ThreatModel) -> Passes:
    """Count the passes of `Subject.withstood`: those of the attack, and one that looks at what it found.

    The attack runs once on a small image, against a stand-in for the model that it cannot fool. One from elsewhere, which
    may remember what it has seen, does not run: `passes_of` then returns None.
    """
    function: object = attack.func if isinstance(attack, partial) else attack
    if not str(getattr(function, "__module__", "")).startswith("robusttune.attacks."):
        raise _NotKnownError("passes of an attack from elsewhere are not known")
    channels, *sides = subject.shape
    shape = (channels, *(min(side, SIDE) for side in sides))
    stand_in = replace(
        subject,
        model=_Sure(subject.classes),
        pixels=Pixels(),
        shape=shape,
        device=torch.device("cpu"),
        tally=Tally(),
        clock=None,
    )
    image, label = torch.full((1, *shape), 0.5), torch.zeros(1, dtype=torch.long)
    stand_in.withstood(image, label, label == 0, attack, threat, loss="cross_entropy", generator=stand_in.generator())
    work = stand_in.tally.work
    return Passes(work["forward"], work["backward"], exact=False)


class _NotKnownError(ValueError):
    """The number of passes is not known."""


class _Sure(nn.Module):
    """A model that answers 0 to all images, with a gradient."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.slopes = 0.01 * torch.arange(1.0, classes + 1)

    def forward(self, images: Tensor) -> Tensor:
        logits = images.flatten(1).mean(1, keepdim=True) * self.slopes
        return logits + 10 * (torch.arange(logits.shape[1]) == 0)


def count_images(loader: Loader, batch: int) -> int | None:
    """Count the images that this process gets of a loader; None if the loader does not say how many it has.

    Args:
        loader: the loader of all images.
        batch: the number of images in its first batch.
    """
    everything = _all_images(loader, batch)
    return None if everything is None else -(-everything // distributed.world())


def _all_images(loader: Loader, batch: int) -> int | None:
    if isinstance(loader, Labelled):
        return _all_images(loader.loaders[0], batch)
    if isinstance(loader, FirstImages):
        inside = _all_images(loader.loader, batch)
        return loader.images if inside is None else min(loader.images, inside)
    if isinstance(loader, Sequence):
        sizes = [length_of(each[0] if isinstance(each, tuple | list) and each else each) for each in loader]
        if None not in sizes and not any(isinstance(each, Mapping) for each in loader):
            return sum(size or 0 for size in sizes)
    batches = length_of(loader)
    if batches is None:
        return None
    known = length_of(loader.sampler) if isinstance(loader, DataLoader) and loader.batch_size else None
    return batches * batch if known is None else min(known, batches * batch)
