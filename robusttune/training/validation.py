"""How a model under training does on held-out images, and which of its states is kept."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from robusttune.attacks import Attack
from robusttune.attacks.pgd import pgd
from robusttune.measuring.subject import Subject
from robusttune.model.borrowing import evaluating, frozen
from robusttune.model.devices import device_of
from robusttune.run import distributed
from robusttune.threat import ThreatModel
from robusttune.training.robust_loss import RobustLoss

STEPS = 10
COLLAPSE = 0.2
BLIND = 0.25  # robust overfitting, which is another thing, leaves more than this share of the training accuracy

judge: Attack = partial(pgd, steps=STEPS)


@dataclass(frozen=True)
class Score:
    """Shares of held-out images that are classified rightly.

    Attributes:
        clean, robust: of the images as they are, and under PGD with 10 steps at the training radius.
        balanced, worst: the mean and the smallest of the classes' own robust shares.
        images: how many there were.
    """

    clean: float
    robust: float
    balanced: float
    worst: float
    images: int


def score(robust_loss: RobustLoss, loader: Any, threat: ThreatModel) -> Score:
    """The score of the model as it is; with several processes, each takes its share of the batches."""
    device, classes = device_of(robust_loss), robust_loss.classifier.classes
    seen, clean, robust = (torch.zeros(classes, device=device) for _ in range(3))
    model = robust_loss.model
    with evaluating(model), frozen(model.parameters()):
        subject = Subject(model, robust_loss.pixels, threat, loader, (), classes, device, robust_loss.seed)
        for pixels, labels in subject.batches():
            right = subject.predicted(pixels) == labels
            held = right.clone()
            rows = torch.nonzero(right).flatten()
            if len(rows) and threat.eps > 0:
                images, own = pixels[rows], labels[rows]
                found = subject.attacked(
                    images, own, judge, threat, loss="cross_entropy", generator=subject.generator()
                )
                held[rows] = subject.predicted(found) == own
            for count, which in ((seen, torch.ones_like(right)), (clean, right), (robust, held)):
                count.index_add_(0, labels, which.to(count.dtype))
    counts = distributed.summed([*seen.tolist(), *clean.tolist(), *robust.tolist()], device)
    return _score(torch.tensor(counts).reshape(3, classes))


def _score(counts: Tensor) -> Score:
    seen, clean, robust = counts
    there = seen > 0
    images = float(seen.sum())
    shares = robust[there] / seen[there]
    return Score(
        float(clean.sum()) / images,
        float(robust.sum()) / images,
        float(shares.mean()),
        float(shares.min()),
        int(images),
    )


class Best:
    """The state of the model with the best robust score so far.

    Args:
        min_clean: states with a lower clean score are taken only while there is no other.
    """

    def __init__(self, min_clean: float | None = None) -> None:
        self.min_clean = min_clean
        self.epoch = 0
        self.score: Score | None = None
        self.weights: dict[str, Tensor] = {}

    def offer(self, epoch: int, score: Score, weights: Mapping[str, Tensor]) -> bool:
        """Keep these weights if they are better than those kept; whether they were."""
        if self.score is not None and self._rank(score) <= self._rank(self.score):
            return False
        self.epoch, self.score = epoch, score
        self.weights = {name: tensor.detach().clone() for name, tensor in weights.items()}
        return True

    def _rank(self, score: Score) -> tuple[bool, float, float]:
        holds = self.min_clean is None or score.clean >= self.min_clean
        return holds, score.robust if holds else score.clean, score.clean

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on."""
        return {
            "epoch": self.epoch,
            "score": None if self.score is None else asdict(self.score),
            "weights": dict(self.weights),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.epoch, self.weights = state["epoch"], dict(state["weights"])
        self.score = None if state["score"] is None else Score(**state["score"])


def collapsed(best: Best, score: Score, trained: float | None = None) -> bool:
    """Whether single-step training has overfitted catastrophically.

    It has where robust accuracy fell far below the best so far, and where the single step that training takes fools the
    model much more rarely than several steps do: this shows a collapse that came before there was anything to lose.

    Args:
        trained: share of training images classified rightly after the single step; None where it was of a smaller eps.

    Source: Wong et al., arXiv:2001.03994, section 5.4, for the first sign; the second is ours.
    """
    fell = best.score is not None and best.score.robust - score.robust > COLLAPSE
    blind = trained is not None and trained - score.robust > COLLAPSE and score.robust < BLIND * trained
    return fell or blind
