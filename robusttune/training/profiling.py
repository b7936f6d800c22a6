"""Measurements of a run on a few of its steps: seconds, and passes through the model; its weights change."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robusttune.attacks import Attack
from robusttune.data.batches import stream
from robusttune.data.loaders import images_an_epoch, is_exhaustible, length_of
from robusttune.model.features import logits_of, predicted_classes
from robusttune.model.timing import synchronize
from robusttune.run import distributed
from robusttune.threat import LossOf, ThreatModel
from robusttune.training import fitted_heads
from robusttune.training.batch import LoadedBatch
from robusttune.training.loop import Training
from robusttune.training.pretext_accuracy import pretext_scores
from robusttune.training.schedule import LATE
from robusttune.training.validation import STEPS, score

WARM_UP, LEAST, MOST, ENOUGH = 2, 4, 50, 4.0  # batches, and seconds after which no more are taken

clock: Callable[[], float] = time.perf_counter


class PassCount(NamedTuple):
    """The number of images in forward passes, and in backward passes (toward images, or toward weights)."""

    forward: float
    backward: float

    def times(self, images: float) -> "PassCount":
        """Multiply both counts by a number of images."""
        return PassCount(self.forward * images, self.backward * images)

    def plus(self, other: "PassCount") -> "PassCount":
        """Add two counts."""
        return PassCount(self.forward + other.forward, self.backward + other.backward)


class Pace(NamedTuple):
    """Timing of a run: seconds until the loader has its first batch, seconds per image, and extra seconds of the first steps."""

    startup: float
    per_image: float
    warm_up: float


class FitCost(NamedTuple):
    """Passes and seconds of the fit of the heads that wait for the end of a run."""

    passes: PassCount
    seconds: float


class ValidationCost(NamedTuple):
    """The number of held-out images, seconds per image of a validation, and of measuring the pretext heads."""

    images: int
    per_image: float
    heads: float


def passes_in(model: nn.Module, work: Callable[[], object]) -> PassCount:
    """Run some work; return the images that went through the model in it, backward where a gradient was prepared."""
    forward, backward = 0, 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        nonlocal forward, backward
        forward += len(inputs[0])
        backward += len(inputs[0]) * logits_of(output).requires_grad

    hook = model.register_forward_hook(count)
    try:
        work()
    finally:
        hook.remove()
    return PassCount(float(forward), float(backward))


def per_validation(eps: float) -> PassCount:
    """Count the passes of an image that is validated and classified correctly; without a radius it is not attacked."""
    return PassCount(STEPS + 2, STEPS) if eps else PassCount(1, 0)


def pace(training: Training) -> Pace:
    """Measure how fast a run takes its steps, those of the late attack separately."""
    measured, robust_loss = _pace(training), training.robust_loss
    if training.late is not None:
        early, robust_loss.attack = robust_loss.attack, training.late
        late = _pace(training)
        robust_loss.attack = early
        measured = measured._replace(per_image=LATE * measured.per_image + (1 - LATE) * late.per_image)
    return measured


def _pace(training: Training) -> Pace:
    """Measure steps, after warm-up steps that are timed separately."""
    began, device = clock(), training.stepper.device
    warm_up, images, taken, since = 0.0, 0, 0, 0.0
    while taken < MOST + WARM_UP:
        training.consumed = 0
        for count in training.train_batches():
            taken += 1
            images += count
            if taken == WARM_UP:
                synchronize(device)
                since = clock()
                warm_up, images = since - began, 0
            if taken > WARM_UP and _enough(taken - WARM_UP, clock() - since, training):
                break
        if taken > WARM_UP and _enough(taken - WARM_UP, clock() - since, training):
            break
    synchronize(device)
    per_image = (clock() - since) / images
    training.stepper.drop()
    batch = len(training.batches.peeked[0])
    return Pace(_startup(training), per_image, max(0.0, warm_up - WARM_UP * batch * per_image))


def _enough(taken: int, seconds: float, training: Training) -> bool:
    whole = taken % training.progress.length.accumulate == 0 or taken >= MOST
    done = whole and (taken >= MOST or (taken >= LEAST and seconds >= ENOUGH))
    return bool(distributed.agreed(float(done), training.stepper.device))


def _startup(training: Training) -> float:
    """Measure the seconds until the workers of a loader have its first batch; 0 without workers, as each step then loads."""
    loader = training.batches.loader
    if not getattr(loader, "num_workers", 0):
        return 0.0
    began = clock()
    next(iter(loader))
    return clock() - began


def validation_cost(training: Training) -> ValidationCost | None:
    """Measure a validation on one batch of held-out images; None if there are none.

    Misclassified images are not attacked, but their number is not known in advance, so all images are counted.
    """
    held, robust_loss, device = training.validation.loader, training.robust_loss, training.stepper.device
    if held is None:
        return None
    began = clock()
    images = next(stream(held))[0]
    loading = (clock() - began) / max(1, getattr(held, "num_workers", 0))
    # With the model's answers as labels, no image counts as misclassified.
    batch = [(images, predicted_classes(robust_loss.model, robust_loss.pixels, images))]
    validated = _seconds(lambda: score(robust_loss, batch, training.stepper.threat), device)
    heads = _seconds(lambda: pretext_scores(robust_loss, batch), device) if robust_loss.heads.tasks else 0.0
    count = _images(held) / distributed.world()
    return ValidationCost(round(count), (validated + loading) / len(images), (heads + loading) / len(images))


def fit_cost(training: Training) -> FitCost:
    """Count the passes of the fit of the heads that wait, and measure its seconds on one batch."""
    batches, waiting = training.batches, training.robust_loss.heads.waiting
    if not waiting or is_exhaustible(batches.loader):
        return FitCost(PassCount(0.0, 0.0), 0.0)
    batch, device = batches.peeked[0], training.stepper.device
    known = images_an_epoch(batches.loader, len(batch))
    images = fitted_heads.MOST if known is None else min(known, fitted_heads.MOST)
    seconds = images / len(batch) * _seconds(lambda: fitted_heads.views_of_tasks(training, [batch]), device)
    for views in fitted_heads.views_of_tasks(training, [batch]).values():
        many = fitted_heads.Views(_resized(views.features, images), _resized(views.targets, images), views.classes)
        seconds += _seconds(partial(fitted_heads.fitted, many), device)
    return FitCost(PassCount(float(images * len(waiting)), 0.0), seconds)


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    work()
    synchronize(device)
    began = clock()
    work()
    synchronize(device)
    return clock() - began


def _images(loader: Any) -> int:
    known = length_of(getattr(loader, "dataset", None))
    return sum(len(images) for images, _ in stream(loader)) if known is None else known


def one_step(training: Training, count: int, *, last: bool = True) -> Callable[[], Any]:
    """Return a function that takes a batch of this size, and with `last` a step."""
    batch = sized_batch(training, count)
    return lambda: training.stepper.take(batch, done=0.0, last=last)


def sized_batch(training: Training, count: int) -> LoadedBatch:
    """Return a batch of this size, cut from the first batch or repeating it."""
    images, labels = training.batches.peeked
    unlabeled = None
    if training.unlabeled is not None:
        first = training.unlabeled.peeked[0]
        unlabeled = _resized(first, max(2, round(count * len(first) / len(images))))
    return LoadedBatch(_resized(images, count), None if labels is None else _resized(labels, count), unlabeled)


def _resized(rows: Tensor, count: int) -> Tensor:
    """Cut or repeat rows, until there are `count` of them."""
    return rows if len(rows) == count else rows.repeat(-(-count // len(rows)), *[1] * (rows.dim() - 1))[:count]


def pass_counts(training: Training) -> dict[str, PassCount]:
    """Count passes per training image by part: the attack, the update, the views of pretext tasks, and the teacher.

    The attack's passes are counted in a step of two images. Forward passes repeated by `checkpointing` are left out.
    """
    robust_loss = training.robust_loss
    attack = _attack_passes(training, robust_loss.attack)
    if training.late is not None:
        attack = attack.times(LATE).plus(_attack_passes(training, training.late).times(1 - LATE))
    once, batch = PassCount(1.0, 1.0), len(training.batches.peeked[0])
    objective = robust_loss.objective
    clean = 1.0 if objective is not None and objective.needs_clean else 0.0
    updates = 0 if objective is None else (1 + clean) * (2 if robust_loss.awp else 1)
    views = float(robust_loss.heads.views) if robust_loss.heads.drawn else 0.0
    attacked = robust_loss.attack_tasks != "none"
    per_view = once.plus(attack) if attacked else once
    counts = {
        "attack": attack.plus(PassCount(clean, 0.0)),
        "update": once.times(updates),
        "views": per_view.times(views),
    }
    if training.teacher is not None and not training.teacher.remembers:
        counts["teacher"] = PassCount(getattr(training.batches.loader, "share", 1.0), 0.0)
    if training.unlabeled is not None:
        share, shares = len(training.unlabeled.peeked[0]) / batch, bool(robust_loss.heads.sharing)
        shared = (once.plus(attack) if robust_loss.attack_tasks == "joint" else once).times(float(shares))
        counts["views"] = counts["views"].plus(per_view.times(views).plus(shared).times(share))
    return counts


def _attack_passes(training: Training, attack: Attack) -> PassCount:
    """Count the passes of an attack per image, in a step of two images."""
    robust_loss = training.robust_loss
    counting, original = _Counting(attack), robust_loss.attack
    robust_loss.attack = counting
    try:
        one_step(training, 2)()
    finally:
        robust_loss.attack = original
    return counting.count


class _Counting:
    """An attack that counts the passes of its first call, with and without gradients, per image."""

    def __init__(self, attack: Attack) -> None:
        self.attack, self.count = attack, PassCount(0.0, 0.0)
        self.called = False

    def __call__(self, loss_of: LossOf, images: Tensor, threat: ThreatModel, *, generator: torch.Generator) -> Tensor:
        if self.called:  # the other calls are for views, with as many passes
            return self.attack(loss_of, images, threat, generator=generator)
        self.called = True

        def counted(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            def counting(candidates: Tensor) -> Tensor:
                back = candidates.requires_grad and torch.is_grad_enabled()
                share = len(candidates) / len(images)
                self.count = self.count.plus(PassCount(share, share * back))
                return function(candidates)

            return counting

        logits_of = None if loss_of.logits_of is None else counted(loss_of.logits_of)
        counted_loss = LossOf(counted(loss_of), labels=loss_of.labels, logits_of=logits_of)
        return self.attack(counted_loss, images, threat, generator=generator)
