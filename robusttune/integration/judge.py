"""Attacks of batches that a framework hands over one after the other, with the same figures as `evaluate`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from robusttune import plugins
from robusttune.attacks import AttackLike, stays_in_ball
from robusttune.data.batches import check_classes, check_images, checked_labels, hard_labels
from robusttune.data.pixels import Pixels, check_space, find_pixels, rounded
from robusttune.evaluations import LossName, Steps, losses_for, steps_for
from robusttune.measuring.evaluate import borrowed
from robusttune.measuring.subject import Subject
from robusttune.model.checks import check_whole
from robusttune.model.devices import check_module, device_of, dtype_of
from robusttune.model.memory_format import chosen_format, formatted
from robusttune.model.probe import first_logits
from robusttune.run.folder import as_json
from robusttune.run.provenance import fingerprint
from robusttune.run.settings import as_written, check_settings
from robusttune.threat import ThreatModel
from robusttune.types import Channels, says


class Judge:
    """A model under an attack, as `sweep` attacks it at one radius.

    Args:
        model: images -> logits (N,K), on any device, in any mode; both are kept.
        threat: the adversary.
        attack, steps, losses: as for `robusttune.evaluations.sweep.sweep`.
        mean, std, normalized: the normalisation of the model's input, as for `evaluate`; the first batch decides the space of the images.
        seed: the seed of random starts.

    Raises:
        ValueError: a model that cannot be judged, an attack that leaves the ball, or settings that do not fit.
    """

    def __init__(
        self,
        model: nn.Module,
        threat: ThreatModel,
        *,
        attack: AttackLike = "apgd",
        steps: Steps = "auto",
        losses: Sequence[LossName] = ("cross_entropy", "margin"),
        mean: Channels | None = None,
        std: Channels | None = None,
        normalized: bool | None = None,
        seed: int = 0,
    ) -> None:
        check_settings({"steps": None if says(steps, "auto") else steps, "seed": seed, "threat": threat})
        check_module(model)
        check_whole(model)
        if not stays_in_ball(plugins.find("attacks", attack)):
            raise ValueError(
                f"the attack {attack!r} leaves the ball, so what it finds is no adversarial example: use 'pgd' or 'apgd'"
            )
        plugins.check_installed("attacks", attack)
        self.model, self.threat, self.losses, self.seed = model, threat, losses_for(attack, losses), seed
        self.attack = plugins.configured("attacks", attack, steps=steps_for(attack, steps))
        self.space = (mean, std, normalized)
        self.pixels: Pixels | None = None

    def attacked(self, batches: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
        """Attack batches together, as one window of `sweep`.

        Args:
            batches: images (N,C,H,W) of one size, as a loader yields them, and labels (N,) or soft (N,K).

        Returns:
            The pixels (M,C,H,W) on [0,1] of all batches, adversarial where the attack fooled the model, its answers (M,)
            to them, and the labels (M,).
        """
        with self._subject(batches[0][0]) as subject:
            parts = [self._read(subject, images, labels) for images, labels in batches]
            pixels, labels = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
            size, generator = len(parts[0][0]), subject.generator()
            answers = subject.predicted(pixels, size)
            for loss in self.losses if self.threat.eps > 0 else ():
                survivors = torch.nonzero(answers == labels).flatten()
                for rows in torch.split(survivors, size) if len(survivors) else ():
                    found = subject.attacked(
                        pixels[rows], labels[rows], self.attack, self.threat, loss=loss, generator=generator
                    )
                    after = subject.predicted(found)
                    fooled = rows[after != labels[rows]]
                    pixels[fooled] = found[after != labels[rows]]
                    answers[rows] = after
        return pixels, answers, labels

    def _read(self, subject: Subject, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        check_images(images, wait=True)
        check_space(subject.pixels, images)
        targets = checked_labels(labels, len(images), wait=True)
        check_classes(targets, subject.classes)
        pixels = subject.pixels.pixels(images.detach().to(subject.device)).clone()
        return pixels, hard_labels(targets).to(subject.device)

    @contextmanager
    def _subject(self, images: Tensor) -> Iterator[Subject]:
        """Borrow the model, in eval mode and without gradients of its weights."""
        place = device_of(self.model)
        with borrowed(self.model, place, self.seed):
            check_images(images, wait=True)
            if self.pixels is None:
                mean, std, normalized = self.space
                self.pixels = find_pixels(images, mean=mean, std=std, normalized=normalized, model=self.model)
            pixels = self.pixels.to(place)
            inputs = pixels.inputs(pixels.pixels(images[:2].to(place))).to(dtype_of(self.model))
            with formatted(self.model, chosen_format("auto", self.model, inputs)):
                yield Subject(
                    model=self.model,
                    pixels=pixels,
                    threat=self.threat,
                    loader=(),
                    shape=tuple(images.shape[1:]),
                    classes=first_logits(self.model, inputs).shape[1],
                    device=place,
                    seed=self.seed,
                )

    @property
    def model_in_words(self) -> str:
        """The type of the model and a hash of its weights."""
        return f"{type(self.model).__name__} with weights {fingerprint(self.model)}"


def check_same(theirs: Judge, mine: Judge) -> None:
    """Raise a ValueError if two judges measure different things, so that their counts do not add up; seeds may differ."""
    both = (theirs, mine)
    facts: dict[str, list[str]] = {
        "threat": [f"{each.threat.norm} eps {as_written(each.threat.eps)}" for each in both],
        "attack": [_in_words(each.attack) for each in both],
        "losses": ["+".join(each.losses) for each in both],
        "input": _inputs(*both),
        "model": [] if theirs.model is mine.model else [each.model_in_words for each in both],
    }
    for name, values in facts.items():
        if len(set(values)) > 1:
            raise ValueError(
                f"the other metric has the {name} {values[0]} and this one {values[1]}, so their counts do not add up: merge metrics "
                "of the same model, threat and settings"
            )


def _in_words(attack: object) -> str:
    if isinstance(attack, partial):
        settings = ", ".join(f"{name}={as_json(value)}" for name, value in sorted(attack.keywords.items()))
        return f"{_in_words(attack.func)} ({settings})"
    return str(getattr(attack, "__qualname__", type(attack).__qualname__))


def _inputs(theirs: Judge, mine: Judge) -> list[str]:
    """Describe the input of the models of two judges, once both have seen images or else as it was asked for."""
    if theirs.pixels is not None and mine.pixels is not None:
        spaces = [(each.mean, each.std, each.normalized) for each in (theirs.pixels, mine.pixels)]
    else:
        spaces = [each.space for each in (theirs, mine)]  # type: ignore[misc]
    return [
        f"mean {mean if mean is None else rounded(mean)}, std {std if std is None else rounded(std)}, normalized {normalized}"
        for mean, std, normalized in spaces
    ]
