"""Whether pretext tasks mean anything on a user's images."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch

from robusttune.data.batches import stream
from robusttune.model.borrowing import evaluating
from robusttune.model.devices import device_of
from robusttune.training.robust_loss import RobustLoss

NEAR = 0.15


class PretextScore(NamedTuple):
    """How often a head is right on held-out images, and how often a guess would be."""

    accuracy: float
    chance: float
    images: int


def pretext_scores(robust_loss: RobustLoss, loader: Any) -> dict[str, PretextScore]:
    """The accuracy of each task's head on one view of each image, without attack; the model stays as it is."""
    right = dict.fromkeys(robust_loss.heads.tasks, 0)
    guesses = dict.fromkeys(robust_loss.heads.tasks, 0.0)
    images = 0
    chance = torch.Generator().manual_seed(robust_loss.seed)
    with torch.no_grad(), evaluating(robust_loss.model):
        for batch, _ in stream(loader):
            pixels = robust_loss.pixels.pixels(batch.to(device_of(robust_loss)))
            images += len(pixels)
            for part, answers in robust_loss.answers(pixels, chance):
                right[part.task] += int((answers.argmax(1) == part.view.targets).sum())
                guesses[part.task] += len(pixels) / part.view.classes
    return (
        {name: PretextScore(right[name] / images, guesses[name] / images, images) for name in right} if images else {}
    )


def near_chance(scores: dict[str, PretextScore]) -> Iterable[str]:
    """The tasks whose heads are hardly better than a guess."""
    return [name for name, score in scores.items() if score.accuracy < score.chance + NEAR * (1 - score.chance)]


def doubts(robust_loss: RobustLoss, loader: Any) -> list[str]:
    """What to tell the user of each task whose head is hardly better than a guess on held-out images."""
    scores = pretext_scores(robust_loss, loader)
    told = []
    for name in near_chance(scores):
        score = scores[name]
        others = {key: weight for key, weight in robust_loss.heads.weights.items() if key != name} or None
        told.append(
            f"{name}'s held-out accuracy is {score.accuracy:.0%} on {score.images} images, near the {score.chance:.0%} of "
            f"a guess: either training was short, or {name} means nothing on these images (as turns do for satellite "
            f"images); then drop it with tasks={others}"
        )
    return told
