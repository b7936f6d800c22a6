"""The models that the judges are compared on: ten, small and quickly trained, and four that hide their gradients."""

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from examples.study.cases import SETTINGS, Case, case, unseen
from examples.study.records import Facts, Study, timed
from robusttune.threat import ThreatModel


class Entry(NamedTuple):
    """A model and the adversary that it is attacked by.

    Attributes:
        setting: its architecture, its images and the adversary of its training.
        training: a key of TRAININGS.
        share: of the training radius that attacks may use; below 1 where none would be right at the whole radius.
        masked: hides the gradients of the trained model; None for the model as it is.
        images: how many test images are attacked.
    """

    setting: str
    training: str
    share: float = 1.0
    masked: str | None = None
    images: int = 50

    @property
    def threat(self) -> ThreatModel:
        """The adversary."""
        known = SETTINGS[self.setting]
        return ThreatModel(known.norm, round(self.share * known.eps, 6))

    @property
    def title(self) -> str:
        """The model in words, for tables."""
        known = SETTINGS[self.setting]
        hidden = f", {self.masked}" if self.masked else ""
        return f"{known.model}, {self.training}, {known.norm} {self.threat.eps:g}{hidden}"


class SteepLogits(nn.Module):
    """Logits times 1,000: probabilities are 0 and 1 to the last bit, and the gradient of the cross-entropy vanishes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return 1000 * self.model(images)


class Waves(nn.Module):
    """Pixels plus a wave over their range, so that the slope of the logits changes all along.

    Args:
        model: takes the pixels.
        waves: in the range of a pixel.
        height: of a wave; below 1, pixels are pulled to levels by smooth steps; above 1, the slope points the wrong way half of the time.
    """

    def __init__(self, model: nn.Module, *, waves: int, height: float) -> None:
        super().__init__()
        self.model, self.turn, self.height = model, 2 * math.pi * waves, height

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images - self.height * (self.turn * images).sin() / self.turn)


MASKS = {
    "logits x 1,000": SteepLogits,
    "pixels in smooth steps": partial(Waves, waves=16, height=0.99),
    "pixels in waves": partial(Waves, waves=8, height=3.0),
}


def ordinary(case: Case) -> nn.Module:
    """Trained on images as they are."""
    return case.start(case.images)


def hardened(case: Case, *, batch: int, steps: int, **settings: object) -> nn.Module:
    """Trained on images as they are, once for each architecture, then hardened by so many steps."""
    setting = next(name for name, known in SETTINGS.items() if known.model == case.setting.model)
    start = STUDY.model({"setting": setting, "training": "ordinary"})
    return case.hardened(start, case.images, batch=batch, max_steps=steps, **settings)


TRAININGS = {
    "ordinary": ordinary,
    "default": partial(hardened, batch=32, steps=1203, preset="standard"),
    "PGD-10": partial(hardened, batch=64, steps=156, preset="joint"),
    "TRADES": partial(hardened, batch=64, steps=156, preset="joint", objective="trades"),
    "fast": partial(hardened, batch=64, steps=234, preset="fast"),
}
TEN = [
    Entry("cnn-linf", "ordinary", 0.2),
    Entry("cnn-linf", "default"),
    Entry("cnn-linf", "PGD-10", images=40),
    Entry("cnn-linf", "TRADES", images=40),
    Entry("cnn-l2", "default"),
    Entry("cnn-l2", "TRADES"),
    Entry("vit-linf", "default", images=40),
    Entry("vit-l2", "PGD-10", images=40),
    Entry("mobile-linf", "fast", images=40),
    Entry("resnet-l2", "fast", images=40),
]
MASKED = [
    Entry("cnn-linf", "default", masked="logits x 1,000"),
    Entry("cnn-linf", "default", masked="pixels in smooth steps"),
    Entry("cnn-linf", "default", masked="pixels in waves", images=40),
    Entry("cnn-l2", "default", masked="pixels in waves", images=40),
]
ENTRIES = {entry.title: entry for entry in [*TEN, *MASKED]}


def train(run: Facts) -> tuple[nn.Module, Facts]:
    """The model of a setting after a training."""
    known = case(str(run["setting"]), None, 0)
    return timed(lambda: TRAININGS[str(run["training"])](known))


STUDY = Study("judge-models", train)


def model_of(entry: Entry) -> nn.Module:
    """The model, trained once and read from its file afterwards, in eval mode and without gradients of weights."""
    model = STUDY.model({"setting": entry.setting, "training": entry.training})
    if entry.masked:
        model = MASKS[entry.masked](model)
    return model.eval().requires_grad_(False)


def images_of(entry: Entry, rows: range) -> tuple[Tensor, Tensor]:
    """Test images (N,C,H,W) and labels (N,), which no training has seen."""
    images = unseen(entry.setting).dataset
    pixels, labels = zip(*(images[row] for row in rows), strict=True)
    return torch.stack(pixels), torch.tensor([int(label) for label in labels])
