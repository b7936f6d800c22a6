"""Validation of a model under training: its scores on held-out images, the best epoch, and the watch for a collapse."""

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from robusttune.attacks import Attack
from robusttune.attacks.pgd import pgd
from robusttune.data.unlabeled import Labelled
from robusttune.measuring.record import percent
from robusttune.measuring.subject import NotFinite, Subject
from robusttune.model.borrowing import evaluating, frozen
from robusttune.model.devices import device_of
from robusttune.run import distributed
from robusttune.run.files import copied
from robusttune.run.log import tell
from robusttune.threat import ThreatModel
from robusttune.training.divergence import ramping
from robusttune.training.robust_loss import RobustLoss
from robusttune.training.settings import EpochFacts
from robusttune.types import Loader

if TYPE_CHECKING:
    from robusttune.training.loop import Training

logger = logging.getLogger("robusttune")

STEPS = 10
COLLAPSE = 0.2
BLIND = 0.25  # share of the training accuracy; robust overfitting, another failure, leaves more than this share

judge: Attack = partial(pgd, steps=STEPS)


@dataclass(frozen=True)
class Score:
    """Shares of held-out images that are classified correctly.

    Attributes:
        clean, robust: share of correct answers on unchanged images, and under PGD with 10 steps at the training radius.
        balanced, worst: the mean and the smallest of the robust shares of the classes.
        images: the number of held-out images.
    """

    clean: float
    robust: float
    balanced: float
    worst: float
    images: int


def score(robust_loss: RobustLoss, loader: Loader, threat: ThreatModel, micro_batch: int | None = None) -> Score:
    """Score the model with its present weights; with several processes, each takes its share of the batches.

    Args:
        micro_batch: images that go through the model at once; None for all of a batch.

    Raises:
        NotFinite: logits are not finite, in any process.
    """
    device, classes = device_of(robust_loss), robust_loss.classifier.classes
    counts = torch.zeros(3, classes, device=device)
    model, broken = robust_loss.model, None
    with evaluating(model), frozen(model.parameters()):
        subject = Subject(model, robust_loss.pixels, threat, loader, (), classes, device, robust_loss.seed)
        try:
            _count(subject, counts, micro_batch)
        except NotFinite as error:  # the other processes wait for this one's counts
            broken = error
    *summed, failed = distributed.summed([*counts.flatten().tolist(), broken is not None], device)
    if failed:
        raise broken or NotFinite("the model's logits hold NaN or infinite values in another process")
    return _score(torch.tensor(summed).reshape(3, classes))


def _count(subject: Subject, counts: Tensor, micro_batch: int | None) -> None:
    """Add the images of each class to counts (3,K): all, those classified correctly, those that withstand the attack."""
    for batch in subject.batches():
        for pixels, labels in zip(*(torch.split(each, micro_batch or len(each)) for each in batch), strict=True):
            right, withstood = _judged(subject, pixels, labels)
            for count, which in zip(counts, (torch.ones_like(right), right, withstood), strict=True):
                count.index_add_(0, labels, which.to(count.dtype))


def _judged(subject: Subject, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return which images are classified correctly, and which of them withstand the attack, both (N,)."""
    right = subject.predicted(pixels) == labels
    withstood = right.clone()
    rows = torch.nonzero(right).flatten()
    if len(rows) and subject.threat.eps > 0:
        images, targets = pixels[rows], labels[rows]
        adversarial = subject.attacked(
            images, targets, judge, subject.threat, loss="cross_entropy", generator=subject.generator()
        )
        withstood[rows] = subject.predicted(adversarial) == targets
    return right, withstood


def _score(counts: Tensor) -> Score:
    seen, clean, robust = counts
    present = seen > 0
    images = float(seen.sum())
    shares = robust[present] / seen[present]
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
        """Keep these weights if they score better than those kept; returns whether they did."""
        if self.score is not None and self._rank(score) <= self._rank(self.score):
            return False
        self.epoch, self.score = epoch, score
        self.weights = copied(weights)
        return True

    @property
    def missed(self) -> bool:
        """True if all states so far have a lower clean score than `min_clean`."""
        return self.score is not None and self.min_clean is not None and self.score.clean < self.min_clean

    def _rank(self, score: Score) -> tuple[bool, float, float]:
        holds = self.min_clean is None or score.clean >= self.min_clean
        return holds, score.robust if holds else score.clean, score.clean

    def state_dict(self) -> dict[str, Any]:
        """Return the state, for `load_state_dict`."""
        return {
            "epoch": self.epoch,
            "score": None if self.score is None else asdict(self.score),
            "weights": dict(self.weights),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.epoch, self.weights = state["epoch"], dict(state["weights"])
        self.score = None if state["score"] is None else Score(**state["score"])


class Validation:
    """Scores epochs on held-out images, keeps the weights of the best one, and watches for the collapse of single-step training.

    Args:
        loader: the loader of held-out images; None for no validation.
        min_clean: see `Best`.
        every: epochs between two validations; the last epoch is always validated.
        single_step: watch for the collapse of single-step training.
    """

    def __init__(
        self, loader: Loader | None, *, min_clean: float | None = None, every: int = 1, single_step: bool = False
    ) -> None:
        self.loader, self.every, self.single_step = loader, every, single_step
        self.best = Best(min_clean)
        self.last: Score | None = None
        self.fell_back = False
        self.knew = False  # True if the model was seen to know its classes at the start
        self.right_before: float | None = None  # its accuracy at the start, on some training images

    def is_due(self, epoch: int, *, last: bool) -> bool:
        """Return True if this epoch, counted from 1, has to be validated."""
        return self.loader is not None and (last or epoch % self.every == 0)

    def has_collapsed(self, score: Score, trained: float | None) -> bool:
        """Return True if single-step training has collapsed and has not fallen back yet; see `collapsed`."""
        return self.single_step and not self.fell_back and collapsed(self.best, score, trained)

    def fall_back(self, score: Score, trained: float | None, epoch: int, *, over: bool) -> None:
        """Log that single-step training has collapsed, and what follows.

        Args:
            score, trained, epoch: score, accuracy in training, and number of the collapsed epoch.
            over: whether no step of the run is left for several steps of PGD.
        """
        best = self.best.score
        self.fell_back = True
        earlier = "" if best is None else f", after {percent(best.robust)} at best"
        single = "an unknown share" if trained is None else percent(trained)
        returned = f"the weights of epoch {self.best.epoch or epoch}"
        then = f"it continues with {STEPS} steps of PGD from {returned}"
        if over:
            then = f"no step is left for a stronger attack and {returned} are returned: pass attack='pgd', of {STEPS} steps"
        logger.warning(
            "only %s of held-out images withstand PGD%s, and %s of training images withstand a single step: single-step training has "
            "overfitted catastrophically, so %s",
            percent(score.robust),
            earlier,
            single,
            then,
        )


def validate(training: "Training", trained: float | None) -> EpochFacts:
    """Score the weights that would be returned if the run ended now, and keep them if they are the best.

    After a collapse of single-step training the steps that are left are taken with PGD from the best weights so far; where the run
    has diverged, with a lower learning rate. Returns the facts of the epoch; none where the weights cannot be scored.

    Args:
        trained: the share of the epoch's adversarial training images that were classified correctly.
    """
    validation, epoch, weights = training.validation, training.epoch + 1, training.weights()
    if ramping(training):
        trained = None  # the radius was smaller
    now = validation.last = _present_score(training)
    facts = {} if now is None else {f"held-out {key}": value for key, value in asdict(now).items()}
    if training.recovery.judge(training, now, trained, weights) or now is None:
        return facts
    overfitted = validation.has_collapsed(now, trained)
    if overfitted:
        validation.fall_back(now, trained, epoch, over=training.recovery.ends(training))
    if not overfitted or validation.best.score is None:
        validation.best.offer(epoch, now, weights)
    if overfitted:
        training.robust_loss.attack = judge
        training.robust_loss.load_state_dict(validation.best.weights)
        training.stepper.restart()
    return facts


def _present_score(training: "Training") -> Score | None:
    """Score the averaged weights on the held-out images; None if the logits are not finite."""
    average, loader = training.stepper.average, training.validation.loader
    assert loader is not None
    with nullcontext() if average is None else average.applied():
        try:
            return score(training.robust_loss, loader, training.stepper.threat, training.stepper.micro_batch)
        except NotFinite:
            return None


def keep_best_weights(training: "Training", *, show: bool) -> None:
    """Load the weights of the best epoch, or those of the last one without validation, and log which."""
    best, last = training.validation.best, training.validation.last
    training.robust_loss.load_state_dict(best.weights if best.score is not None else training.weights())
    right = "agree with the teacher" if isinstance(training.validation.loader, Labelled) else "are right"
    if best.score is None:
        return
    kept = f"{percent(best.score.clean)} {right}"
    ended = "not finite" if last is None else percent(last.clean)
    if best.missed and distributed.rank() == 0:
        logger.warning(
            "no epoch has a clean accuracy of min_clean=%g on held-out images: epoch %d has the highest, %s",
            best.min_clean,
            best.epoch,
            percent(best.score.clean),
        )
    if training.stepper.threat.eps:
        kept += f", and {percent(best.score.robust)} under attack"
        ended += "" if last is None else f" and {percent(last.robust)}"
    tell(
        f"kept epoch {best.epoch}: on {best.score.images} held-out images {kept} ({percent(best.score.worst)} in the worst "
        f"class); the last epoch: {ended}",
        show and distributed.rank() == 0,
    )


def collapsed(best: Best, score: Score, trained: float | None = None) -> bool:
    """Return True if single-step training has overfitted catastrophically.

    Two signs: robust accuracy fell far below the best so far; or the single step of training fools the model much more
    rarely than several steps do, which also shows a collapse in the first epochs.

    Args:
        trained: share of training images classified correctly after the single step; None if its eps was smaller.

    Source: Wong et al., arXiv:2001.03994, section 5.4, for the first sign; the second is ours.
    """
    fell = best.score is not None and best.score.robust - score.robust > COLLAPSE
    blind = trained is not None and trained - score.robust > COLLAPSE and score.robust < BLIND * trained
    return fell or blind
