"""The accuracy of pretext heads on held-out images, compared with that of guessing."""

from collections.abc import Iterable
from typing import NamedTuple

import torch

from robusttune.data.batches import stream
from robusttune.model.borrowing import evaluating
from robusttune.model.devices import device_of
from robusttune.training.robust_loss import RobustLoss
from robusttune.types import Loader

NEAR = 0.15  # share of the way from guessing to all answers right


class PretextScore(NamedTuple):
    """The accuracy of a pretext head on held-out images, and the accuracy of guessing."""

    accuracy: float
    guessing: float
    images: int


def pretext_scores(robust_loss: RobustLoss, loader: Loader) -> dict[str, PretextScore]:
    """Measure each head that has learnt on one view of each image, without attack; the model is not changed."""
    correct = dict.fromkeys(robust_loss.heads.learnt, 0)
    guesses = dict.fromkeys(correct, 0.0)
    images = 0
    generator = torch.Generator().manual_seed(robust_loss.seed)
    with torch.no_grad(), evaluating(robust_loss.model):
        for batch, _ in stream(loader):
            pixels = robust_loss.pixels.pixels(batch.to(device_of(robust_loss)))
            images += len(pixels)
            for part, answers in robust_loss.answers(pixels, generator):
                correct[part.task] += int((answers.argmax(1) == part.view.targets).sum())
                guesses[part.task] += len(pixels) / part.view.classes
    return (
        {name: PretextScore(correct[name] / images, guesses[name] / images, images) for name in correct}
        if images
        else {}
    )


def near_guessing(scores: dict[str, PretextScore]) -> Iterable[str]:
    """List the tasks whose heads are hardly better than guessing."""
    return [name for name, score in scores.items() if score.accuracy < score.guessing + NEAR * (1 - score.guessing)]
