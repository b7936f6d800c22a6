"""Comparison of an exported model with the original: their logits, their answers, and their accuracy on the same images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robusttune.attacks import Attack
from robusttune.measuring.losses import LossName
from robusttune.measuring.record import Record, accuracy
from robusttune.measuring.subject import Subject
from robusttune.model.devices import dtype_of
from robusttune.sharing.formats import Runner
from robusttune.types import Json

EVALUATION, ORIGINAL, EXPORTED = "export", "original", "exported"
LOSSES: tuple[LossName, ...] = ("cross_entropy", "margin")
FOUND = "found on the original"
NOTE = (
    "The adversarial images were found on the original model and transferred to the exported one: the accuracy of the exported model "
    "on them is an upper bound of its robust accuracy, as an attack on the export itself may find more."
)


@dataclass
class Differences:
    """The differences between the logits of two models, image by image.

    Attributes:
        largest: difference of two logits; NaN if one is not finite.
        scale: the largest logit of the original, without its sign.
        same: the number of images on which both answer the same.
        images: the number of images whose answers were compared.
    """

    largest: float = 0.0
    scale: float = 0.0
    same: int = 0
    images: int = 0

    def add(self, original: Tensor, exported: Tensor, *, answers: bool = True) -> None:
        """Add the logits (N,K) of both for the same images.

        Args:
            original, exported: logits.
            answers: count on how many of these images both answer the same.

        Raises:
            ValueError: the export returns another shape.
        """
        if original.shape != exported.shape:
            raise ValueError(
                f"the export returns logits of shape {tuple(exported.shape)}, but the original {tuple(original.shape)}: try another format"
            )
        gap = torch.stack([(original - exported).abs().max(), torch.tensor(self.largest)])
        self.largest = float(gap.sum() if bool(gap.isnan().any()) else gap.max())
        self.scale = max(self.scale, float(original.abs().max()))
        if not answers:
            return
        self.same += int((original.argmax(1) == exported.argmax(1)).sum())
        self.images += len(original)

    @property
    def relative(self) -> float:
        """The largest difference as a share of the largest logit; NaN if a logit is not finite."""
        return self.largest / max(self.scale, torch.finfo(torch.float32).tiny)

    @property
    def agreement(self) -> float:
        """The share of images on which both answer the same."""
        return self.same / max(1, self.images)

    def as_json(self) -> dict[str, Json]:
        """Return all numbers as JSON holds them."""
        return {
            "largest difference of logits": self.largest,
            "largest logit": self.scale,
            "relative difference": self.relative,
            "same answers": self.agreement,
            "images": self.images,
        }


@dataclass
class Transfer:
    """An evaluation that measures a model and its export on the same images, unchanged and attacked on the original.

    Args:
        run: runs the export.
        attack: searches for adversarial images on the original, once for each loss.
        setting: the setting of the attack, for the Records.
        differences: between the logits of both, which grow with each image.
    """

    run: Runner
    attack: Attack
    setting: Mapping[str, Json]
    differences: Differences
    __name__: str = field(default=EVALUATION, init=False)

    def __call__(self, subject: Subject) -> list[Record]:
        """Return the accuracy of both models on unchanged images, and on the adversarial images of the original."""
        generator = subject.generator()
        right: dict[str, list[bool]] = {
            f"{model} {state}": [] for model in (ORIGINAL, EXPORTED) for state in ("", "robust")
        }
        for pixels, labels in subject.batches():
            clean = self._answers(subject, pixels)
            hits = {model: answers == labels for model, answers in clean.items()}
            kept = dict(hits)
            for loss in LOSSES:
                adversarial = subject.attacked(
                    pixels, labels, self.attack, subject.threat, loss=loss, generator=generator
                )
                after = self._answers(subject, adversarial)
                kept = {model: kept[model] & (answers == labels) for model, answers in after.items()}
            for model in hits:
                right[f"{model} "] += hits[model].tolist()
                right[f"{model} robust"] += kept[model].tolist()
        threat = {"norm": str(subject.threat.norm), "eps": subject.threat.eps, **self.setting, "seed": subject.seed}
        settings: Sequence[tuple[str, str, dict[str, Json]]] = [
            (model, state, {"model": model, **({**threat, "images": FOUND} if state else {})})
            for state in ("", "robust")
            for model in (ORIGINAL, EXPORTED)
        ]
        return [self._record(right[f"{model} {state}"], setting) for model, state, setting in settings]

    def _record(self, right: Sequence[bool], setting: Mapping[str, Json]) -> Record:
        return accuracy(EVALUATION, sum(right), len(right), setting, right=right)

    def _answers(self, subject: Subject, pixels: Tensor) -> dict[str, Tensor]:
        """Return the answers (N,) of both models, and note how their logits differ."""
        inputs = subject.pixels.inputs(pixels).to("cpu", dtype_of(subject.model))
        original, exported = subject.answers(pixels).cpu(), self.run(inputs).float()
        self.differences.add(original, exported)
        return {ORIGINAL: original.argmax(1).to(pixels.device), EXPORTED: exported.argmax(1).to(pixels.device)}
