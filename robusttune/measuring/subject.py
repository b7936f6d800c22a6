"""Subject: a borrowed model in pixel space, with images and an adversary, for evaluations to measure."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from robusttune.attacks import Attack, attacked
from robusttune.data import sharding
from robusttune.data.batches import check_channels, check_classes, errors_at, hard_labels, sent, stream
from robusttune.data.pixels import Pixels, check_space
from robusttune.measuring.clock import Clock
from robusttune.measuring.failures import fallen
from robusttune.measuring.losses import LOSSES, LossName, LossPerImage, targeted_margin
from robusttune.measuring.tally import Tally
from robusttune.model.devices import dtype_of
from robusttune.model.features import Classifier, forward, logits_of
from robusttune.norms import NormLike, canonical, default_eps
from robusttune.run import distributed
from robusttune.tasks._heads import Heads
from robusttune.threat import LossOf, ThreatModel
from robusttune.types import Loader

logger = logging.getLogger("robusttune")

WINDOW_BATCHES, WINDOW_BYTES = 8, 2**29


class NotFinite(ValueError):
    """The logits of a model are not finite, so that its answers cannot be judged."""


@dataclass(frozen=True)
class Subject:
    """A model in eval mode on a device, with its pixel space, the adversary it should resist, and a loader of images.

    Attributes:
        model: images -> logits (N,K), in eval mode.
        pixels: the conversion from the loader's images to pixels on [0,1] to the model's input.
        threat: the adversary that the model was, or should be, trained against.
        loader: a loader of images and labels.
        shape: (C,H,W) of the images.
        classes: the number of classes.
        device: the model's device.
        seed: the seed of everything random.
        tell: shows one line to the user.
        folder: a folder for files from which an interrupted evaluation goes on; None for none.
        heads, classifier: the pretext heads, if there are any, and the layer whose input they read.
        names: the names of the classes by label; () if they are not known.
        tally: the work done, the images used and the failures so far; evaluations fill it.
        clock: the progress bar that is told of each pass; None for none.
    """

    model: nn.Module
    pixels: Pixels
    threat: ThreatModel
    loader: Loader
    shape: tuple[int, ...]
    classes: int
    device: torch.device
    seed: int = 0
    tell: Callable[[str], None] = logger.info
    folder: Path | None = None
    heads: Heads | None = None
    classifier: Classifier | None = None
    names: Sequence[str] = ()
    tally: Tally = field(default_factory=Tally)
    clock: Clock | None = None

    def logits(self, pixels: Tensor) -> Tensor:
        """Return the logits (N,K) of pixels (N,C,H,W) on [0,1]; differentiable."""
        self._count(len(pixels), backward=pixels.requires_grad and torch.is_grad_enabled())
        return logits_of(self.model(self.pixels.inputs(pixels).to(dtype_of(self.model)))).float()

    def features(self, pixels: Tensor) -> Tensor:
        """Return the features (N,D) that enter the classifier, for pixels (N,C,H,W); pretext heads read them.

        Raises:
            ValueError: there are no heads.
        """
        if self.heads is None or self.classifier is None:
            raise ValueError(
                "this evaluation needs pretext heads: pass heads=, the folder of the run that trained them"
            )
        self._count(len(pixels), backward=False)
        with torch.no_grad():
            return forward(self.model, self.classifier, self.pixels.inputs(pixels).to(dtype_of(self.model)))[1]

    def _count(self, images: int, *, backward: bool) -> None:
        """Count a forward pass, and the backward pass that follows it, of images."""
        self.tally.work["forward"] += images
        if backward:
            self.tally.work["backward"] += images
        if self.clock is not None:
            self.clock.add(images, backward=backward)

    def stage(self, text: str) -> None:
        """Show what the evaluation does now beside the progress bar, such as the name of a corruption."""
        if self.clock is not None:
            self.clock.tell(text)

    def predicted(self, pixels: Tensor, size: int | None = None) -> Tensor:
        """Return the predicted classes (N,); see `answers`."""
        return self.answers(pixels, size).argmax(1)

    def answers(self, pixels: Tensor, size: int | None = None) -> Tensor:
        """Return the logits (N,K) without gradient.

        Args:
            pixels: (N,C,H,W) on [0,1].
            size: the number of images in one forward pass; None for all.

        Raises:
            NotFinite: the logits are not finite.
        """
        with torch.no_grad():
            parts = [pixels] if size is None else torch.split(pixels, size)
            logits = torch.cat([self.logits(part) for part in parts])
        if not bool(torch.isfinite(logits).all()):
            raise NotFinite(
                "the model's logits hold NaN or infinite values: load its weights again, or look for a broken layer"
            )
        return logits

    def adversary(self, norm: NormLike | None = None, eps: float | None = None) -> ThreatModel:
        """Return an adversary; norm and eps default to those of `threat`, eps in another norm to the customary radius."""
        norm = self.threat.norm if norm is None else canonical(norm)
        usual = self.threat.eps if norm == self.threat.norm else default_eps(norm, self.shape)
        return ThreatModel(norm, usual if eps is None else eps)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pixels (N,C,H,W) on [0,1] and hard labels (N,), on the device; each process gets its share.

        Raises:
            ValueError: images are outside the space of the first batch, or labels have no class in the model.
        """
        self.tally.start_pass()
        batches: Iterable[tuple[Tensor, Tensor]] = stream(self.loader)
        for number, (images, labels) in sharding.own_share(enumerate(batches, 1)):
            with errors_at(f"batch {number}"):
                check_channels(images, self.shape[0] if self.shape else None)
                check_space(self.pixels, images)
                if len(labels):
                    check_classes(labels, self.classes)
            # A copy, as loaders may fill the same memory again while batches are held.
            pixels, targets = self.pixels.pixels(sent(images.detach(), self.device)), hard_labels(labels).clone()
            self.tally.add_images(pixels, targets)
            yield pixels, sent(targets, self.device)
            if self.clock is not None:
                self.clock.add_images(len(pixels))

    def windows(self) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Yield several batches joined, and the size of the first, so that surviving images can refill whole batches.

        A window holds up to 8 batches of images of one size, and 512 MiB of pixels.
        """
        held: list[tuple[Tensor, Tensor]] = []
        size = 0
        for pixels, labels in self.batches():
            size = size or len(pixels)
            if held and held[0][0].shape[1:] != pixels.shape[1:]:
                yield *_joined(held), size
                held = []
            held.append((pixels, labels))
            if window_is_full(len(held), pixels.nbytes):
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
        loss: LossName | LossPerImage,
        generator: torch.Generator,
    ) -> Tensor:
        """Return adversarial images (N,C,H,W) for pixels (N,C,H,W) and labels (N,).

        Args:
            pixels, labels: the images and their classes.
            attack: the attack that maximises the loss.
            threat: the adversary.
            loss: "cross_entropy", "margin", or (logits (N,K), labels (N,)) -> losses (N,).
            generator: source of all random numbers.
        """
        per_image = LOSSES[loss] if isinstance(loss, str) else loss
        loss_of = LossOf(
            lambda candidates: per_image(self.logits(candidates), labels), labels=labels, logits_of=self.logits
        )
        if self.clock is None:
            return attacked(attack, loss_of, pixels, threat, generator=generator, inside=True)
        with self.clock.attacking(attack, threat, loss if isinstance(loss, str) else ""):
            return attacked(attack, loss_of, pixels, threat, generator=generator, inside=True)

    def withstood(
        self,
        pixels: Tensor,
        labels: Tensor,
        alive: Tensor,
        attack: Attack,
        threat: ThreatModel,
        *,
        loss: LossName | Tensor,
        generator: torch.Generator,
        size: int | None = None,
    ) -> Tensor:
        """Attack the images that are alive; return which images (N,) stay alive, that is keep their class.

        Args:
            alive: (N,), True for the images to attack.
            pixels, labels, attack, threat, loss, generator, size: as for `answered`.
        """
        answers = torch.where(alive, labels, -1)
        after = self.answered(pixels, labels, answers, attack, threat, loss=loss, generator=generator, size=size)
        return after == labels

    def answered(
        self,
        pixels: Tensor,
        labels: Tensor,
        answers: Tensor,
        attack: Attack,
        threat: ThreatModel,
        *,
        loss: LossName | Tensor,
        generator: torch.Generator,
        size: int | None = None,
    ) -> Tensor:
        """Attack the images that are answered right; return the answers (N,), with the wrong ones that the attack found.

        Args:
            pixels, labels: (N,C,H,W) on [0,1], and their classes (N,).
            answers: (N,), of the model before the attack; images whose answer is wrong keep it, and are not attacked.
            attack: the attack that maximises the loss.
            threat: the adversary.
            loss: "cross_entropy", "margin", or target classes (N,), of which the attack maximises the logits.
            generator: source of all random numbers.
            size: the number of images in one call of the attack; None for all.
        """
        survivors = torch.nonzero(answers == labels).flatten()
        for rows in torch.split(survivors, size or len(survivors)) if len(survivors) else ():
            goal = loss if isinstance(loss, str) else partial(targeted_margin, loss[rows])
            adversarial = self.attacked(pixels[rows], labels[rows], attack, threat, loss=goal, generator=generator)
            logits = self.answers(adversarial)
            if threat.norm == self.threat.norm and threat.eps <= self.threat.eps:
                norm = str(threat.norm)
                self.tally.add_failures(fallen(norm, threat.eps, pixels[rows], adversarial, labels[rows], logits))
            answers = answers.index_put((rows,), logits.argmax(1))
        if self.clock is not None:
            self.clock.add_skipped(len(labels) - len(survivors), attacked=len(survivors))
        return answers

    def totals(self, *counts: float) -> list[int]:
        """Sum each count over the processes that share the images."""
        return [round(total) for total in distributed.summed(counts, self.device)]

    def sums(self, *values: float) -> list[float]:
        """Sum each value over the processes that share the images."""
        return distributed.summed(values, self.device)

    def generator(self) -> torch.Generator:
        """Return a new generator on the device, seeded with the seed."""
        return torch.Generator(self.device).manual_seed(self.seed)


def window_is_full(batches: int, size: int) -> bool:
    """Return True if one more batch, whose pixels take `size` bytes, would be too much for a window."""
    return batches == WINDOW_BATCHES or (batches + 1) * size > WINDOW_BYTES


def _joined(held: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    pixels, labels = zip(*held, strict=True)
    return torch.cat(pixels), torch.cat(labels)
