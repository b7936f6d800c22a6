"""What evaluations measure: a borrowed model in pixel space, and images."""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robusttune.attacks import Attack
from robusttune.data import sharding
from robusttune.data.batches import check_channels, check_classes, hard, located, stream
from robusttune.data.pixels import Pixels, check_later
from robusttune.measuring.failures import Failure, fallen, worst
from robusttune.model.devices import dtype_of
from robusttune.model.features import Classifier, forward, logits_of
from robusttune.run import distributed
from robusttune.tasks._heads import Heads
from robusttune.threat import LossOf, ThreatModel, canonical, default_eps

logger = logging.getLogger("robusttune")

WINDOW_BATCHES, WINDOW_BYTES = 8, 2**29


@dataclass(frozen=True)
class Subject:
    """A model in eval mode on a device, the space of its images, the adversary it should resist, and a loader.

    Attributes:
        model: images -> logits (N,K), in eval mode.
        pixels: from the loader's images to pixels on [0,1] to the model's input.
        threat: the adversary that the model was, or should be, trained against.
        loader: what yields the images.
        shape: (C,H,W) of the images.
        classes: how many the model tells apart.
        device: where the model is.
        seed: of everything random.
        watched: wraps an iterable of batches to show progress.
        tell: says one line to the user.
        folder: where an evaluation may keep what it would go on with; None for nowhere.
        hashes, labels: of the images of the last pass over them, if there are lists for them.
        heads, classifier: pretext heads, where they were given, and the layer whose input they read.
        work: how many images went forward and backward through the model.
        failures: the images that fell most easily to an adversary of the norm and up to the radius of `threat`.
    """

    model: nn.Module
    pixels: Pixels
    threat: ThreatModel
    loader: Any
    shape: tuple[int, ...]
    classes: int
    device: torch.device
    seed: int = 0
    watched: Any = iter
    tell: Callable[[str], None] = logger.info
    folder: Path | None = None
    hashes: list[str] | None = None
    labels: list[int] | None = None
    heads: Heads | None = None
    classifier: Classifier | None = None
    work: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def logits(self, pixels: Tensor) -> Tensor:
        """The logits (N,K) of pixels (N,C,H,W) on [0,1]; differentiable."""
        self.work["forward"] += len(pixels)
        if pixels.requires_grad and torch.is_grad_enabled():
            self.work["backward"] += len(pixels)
        return logits_of(self.model(self.pixels.inputs(pixels).to(dtype_of(self.model)))).float()

    def features(self, pixels: Tensor) -> Tensor:
        """What pretext heads read of pixels (N,C,H,W): the features (N,D) that enter the classifier.

        Raises:
            ValueError: no heads were given.
        """
        if self.heads is None or self.classifier is None:
            raise ValueError(
                "this evaluation needs pretext heads: pass heads=, the folder of the run that trained them"
            )
        self.work["forward"] += len(pixels)
        with torch.no_grad():
            return forward(self.model, self.classifier, self.pixels.inputs(pixels).to(dtype_of(self.model)))[1]

    def predicted(self, pixels: Tensor, size: int | None = None) -> Tensor:
        """The predicted classes (N,); see `answers`."""
        return self.answers(pixels, size).argmax(1)

    def answers(self, pixels: Tensor, size: int | None = None) -> Tensor:
        """The logits (N,K), without gradient, of so many images at once, or of all.

        Raises:
            ValueError: the logits are not finite.
        """
        with torch.no_grad():
            parts = [pixels] if size is None else torch.split(pixels, size)
            logits = torch.cat([self.logits(part) for part in parts])
        if not bool(torch.isfinite(logits).all()):
            raise ValueError("the model's logits hold NaN or infinite values: its answers cannot be judged")
        return logits

    def adversary(self, norm: Any = None, eps: float | None = None) -> ThreatModel:
        """The adversary so named; what is not given is that of `threat`, but the customary radius in another norm."""
        norm = self.threat.norm if norm is None else canonical(norm)
        usual = self.threat.eps if norm == self.threat.norm else default_eps(norm, self.shape)
        return ThreatModel(norm, usual if eps is None else eps)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels (N,C,H,W) on [0,1] and hard labels (N,), on the device.

        Raises:
            ValueError: images outside [0,1] where they are pixels, or labels that the model has no class for.
        """
        for known in (self.hashes, self.labels):
            if known is not None:
                known.clear()
        batches: Iterable[tuple[Tensor, Tensor]] = stream(self.loader)
        for number, (images, labels) in sharding.own_share(self.watched(enumerate(batches, 1))):
            with located(f"batch {number}"):
                check_channels(images, self.shape[0] if self.shape else None)
                check_later(self.pixels, images)
                if len(labels):
                    check_classes(labels, self.classes)
            pixels = self.pixels.pixels(images.detach().to(self.device))
            if self.hashes is not None:
                self.hashes.extend(hashed(pixels))
            targets = hard(labels)
            if self.labels is not None:
                self.labels.extend(targets.tolist())
            yield pixels, targets.to(self.device)

    def windows(self) -> Iterator[tuple[Tensor, Tensor, int]]:
        """As `batches`, several at once, and the size of the first: what survives of them then fills whole batches again.

        A window holds up to 8 batches, and 512 MiB of pixels.
        """
        held: list[tuple[Tensor, Tensor]] = []
        size = 0
        for pixels, labels in self.batches():
            size = size or len(pixels)
            held.append((pixels, labels))
            # one more such batch would be too much
            if len(held) == WINDOW_BATCHES or (len(held) + 1) * pixels.nbytes > WINDOW_BYTES:
                yield *_joined(held), size
                held = []
        if held:
            yield *_joined(held), size

    def attacked(
        self,
        pixels: Tensor,
        labels: Tensor,
        attack: Attack,
        threat: ThreatModel,
        *,
        loss: str | Callable[[Tensor, Tensor], Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        """Adversarial images (N,C,H,W) for pixels and labels, found by maximising one of LOSSES, or (logits, labels) ->
        losses (N,)."""
        per_image = LOSSES[loss] if isinstance(loss, str) else loss
        goal = LossOf(
            lambda candidates: per_image(self.logits(candidates), labels), labels=labels, logits_of=self.logits
        )
        return attack(goal, pixels, threat, generator=generator)

    def withstood(
        self,
        pixels: Tensor,
        labels: Tensor,
        alive: Tensor,
        attack: Attack,
        threat: ThreatModel,
        *,
        loss: str | Tensor,
        generator: torch.Generator,
        size: int | None = None,
    ) -> Tensor:
        """Which images (N,) were alive and keep their class under the attack, which is given only these.

        The loss is one of LOSSES, or the classes (N,) that the attack is to reach; size is how many images the attack
        is given at once, all unless given.
        """
        survivors = torch.nonzero(alive).flatten()
        for rows in torch.split(survivors, size or len(survivors)) if len(survivors) else ():
            goal: Any = loss if isinstance(loss, str) else partial(toward, loss[rows])
            found = self.attacked(pixels[rows], labels[rows], attack, threat, loss=goal, generator=generator)
            logits = self.answers(found)
            if threat.norm == self.threat.norm and threat.eps <= self.threat.eps:
                now = fallen(str(threat.norm), threat.eps, pixels[rows], found, labels[rows], logits)
                self.failures[:] = worst(self.failures + now)
            alive = alive.index_put((rows,), logits.argmax(1) == labels[rows])
        return alive

    def totals(self, *counts: float) -> list[int]:
        """Each count, summed over the processes that share the images."""
        return [round(total) for total in distributed.summed(counts, self.device)]

    def sums(self, *values: float) -> list[float]:
        """Each value, summed over the processes that share the images."""
        return distributed.summed(values, self.device)

    def generator(self) -> torch.Generator:
        """A fresh source of chance on the device, the same each time."""
        return torch.Generator(self.device).manual_seed(self.seed)


def _joined(held: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    pixels, labels = zip(*held, strict=True)
    return torch.cat(pixels), torch.cat(labels)


def hashed(pixels: Tensor) -> list[str]:
    """What tells each of the images (N,C,H,W) from others: a hash of its 8-bit values, which no loader changes."""
    levels = (pixels * 255).round().clamp(0, 255).byte().cpu()
    return [hashlib.blake2b(image.numpy().tobytes(), digest_size=8).hexdigest() for image in levels]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy of each image: (N,)."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """By how much the best wrong logit exceeds the right one, which does not saturate: (N,)."""
    own = F.one_hot(labels, logits.shape[1]).bool()
    wrong = logits.masked_fill(own, -torch.inf).amax(1)
    return wrong - logits.gather(1, labels[:, None])[:, 0]


def toward(targets: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """By how much the logit of the target exceeds that of the label: (N,)."""
    return (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None]))[:, 0]


LOSSES = {"cross_entropy": cross_entropy, "margin": margin}
