"""What the steps of a run and its judgements take, measured on a few of them; the run's weights change meanwhile."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from robusttune.attacks import Attack
from robusttune.data.batches import stream
from robusttune.measuring.subject import Subject
from robusttune.model.borrowing import evaluating
from robusttune.model.timing import synchronize
from robusttune.run import distributed
from robusttune.threat import LossOf
from robusttune.training.loop import Training
from robusttune.training.memory import bytes_of, free_bytes, most_bytes
from robusttune.training.pretext_accuracy import pretext_scores
from robusttune.training.schedule import LATE
from robusttune.training.validation import STEPS, score

WARM_UP, LEAST, MOST, ENOUGH = 2, 4, 50, 4.0  # batches, and seconds after which no more are taken
USABLE = 0.9  # of free memory: the rest is lost between what is allocated

clock: Callable[[], float] = time.perf_counter


class Passes(NamedTuple):
    """How many images go forward through the model, and toward how many (or from them to weights) gradients go back."""

    forward: float
    backward: float

    def times(self, images: float) -> "Passes":
        """That of so many as much."""
        return Passes(self.forward * images, self.backward * images)

    def plus(self, other: "Passes") -> "Passes":
        """Both together."""
        return Passes(self.forward + other.forward, self.backward + other.backward)


class Pace(NamedTuple):
    """Seconds of an epoch before its first step, of an image's share of a step, and of the first steps more than that."""

    opening: float
    per_image: float
    warming: float


class Memory(NamedTuple):
    """Bytes that a run takes at most with the batches it has, and the largest batch that would fit, where it is known."""

    most: int
    largest_batch: int | None


class Judging(NamedTuple):
    """Held-out images, and the seconds for each of them: in a judgement, and when pretext heads are looked at."""

    images: int
    per_image: float
    heads: float


JUDGED = Passes(STEPS + 2, STEPS)


def pace(training: Training) -> Pace:
    """How fast a run takes its steps; those of its last quarter apart, where another attack makes them."""
    found, robust_loss = _pace(training), training.robust_loss
    if training.late is not None:
        early, robust_loss.attack = robust_loss.attack, training.late
        late = _pace(training)
        robust_loss.attack = early
        found = found._replace(per_image=LATE * found.per_image + (1 - LATE) * late.per_image)
    return found


def _pace(training: Training) -> Pace:
    """How fast a run takes its steps, after warm-up ones that are looked at apart."""
    began, device = clock(), training.stepper.device
    warming, images, taken, since = 0.0, 0, 0, 0.0
    while taken < MOST + WARM_UP:
        training.consumed = 0
        for count in training.taking():
            taken += 1
            images += count
            if taken == WARM_UP:
                synchronize(device)
                since = clock()
                warming, images = since - began, 0
            if taken > WARM_UP and _enough(taken - WARM_UP, clock() - since, training):
                break
        if taken > WARM_UP and _enough(taken - WARM_UP, clock() - since, training):
            break
    synchronize(device)
    per_image = (clock() - since) / images
    training.stepper.drop()
    batch = len(training.batches.peeked[0])
    return Pace(_opening(training), per_image, max(0.0, warming - WARM_UP * batch * per_image))


def _enough(taken: int, seconds: float, training: Training) -> bool:
    whole = taken % training.plan.accumulate == 0 or taken >= MOST
    done = whole and (taken >= MOST or (taken >= LEAST and seconds >= ENOUGH))
    return bool(distributed.agreed(float(done), training.stepper.device))


def _opening(training: Training) -> float:
    """Seconds until the workers of a loader have its first batch; without workers a step has the loading in it."""
    loader = training.batches.loader
    if not getattr(loader, "num_workers", 0):
        return 0.0
    began = clock()
    next(iter(loader))
    return clock() - began


def judging(training: Training) -> Judging | None:
    """What a judgement on held-out images takes; None where there are none.

    Images that are classified wrongly are not attacked, and how many those will be is not known: all are counted.
    """
    held, robust_loss, device = training.held, training.robust_loss, training.stepper.device
    if held is None:
        return None
    began = clock()
    images = next(stream(held))[0]
    loading = (clock() - began) / max(1, getattr(held, "num_workers", 0))
    batch = [(images, _answers(training, images))]
    judged = _seconds(lambda: score(robust_loss, batch, training.stepper.threat), device)
    heads = _seconds(lambda: pretext_scores(robust_loss, batch), device) if robust_loss.heads.tasks else 0.0
    count = _images(held) / distributed.world()
    return Judging(round(count), (judged + loading) / len(images), (heads + loading) / len(images))


def _answers(training: Training, images: Tensor) -> Tensor:
    """The classes (N,) that the model gives images (N,C,H,W), with which all of them are right."""
    robust_loss, device = training.robust_loss, training.stepper.device
    classes = robust_loss.classifier.classes
    with evaluating(robust_loss.model):
        subject = Subject(
            robust_loss.model, robust_loss.pixels, training.stepper.threat, (), (), classes, device, robust_loss.seed
        )
        return subject.predicted(robust_loss.pixels.pixels(images.to(device))).cpu()


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    work()
    synchronize(device)
    began = clock()
    work()
    synchronize(device)
    return clock() - began


def _images(loader: Any) -> int:
    dataset: Any = getattr(loader, "dataset", None)
    if hasattr(dataset, "__len__"):
        return len(dataset)
    return sum(len(images) for images, _ in stream(loader))


def memory(training: Training) -> Memory:
    """What a run takes at most, and what it would take with other batches: a straight line through two small ones."""
    stepper, robust_loss = training.stepper, training.robust_loss
    device, batch = stepper.device, len(training.batches.peeked[0])
    kept = bytes_of(tree_leaves(training.state_dict()))
    if training.held is not None:  # the best weights so far are kept, too
        kept += bytes_of(robust_loss.state_dict().values())
    whole, free = most_bytes(_step(training, batch), device), free_bytes(device)
    small, larger = max(2, batch // 4), max(4, batch // 2)
    parts, stepper.micro_batch = stepper.micro_batch, None
    try:
        low, high = (most_bytes(_step(training, count), device) for count in (small, larger))
    finally:
        stepper.micro_batch = parts
    slope = (high - low) / (larger - small)
    if free is None or slope <= 0:
        return Memory(kept + whole, None)
    fits = int((USABLE * free - (low - slope * small)) / slope)
    return Memory(kept + whole, fits if parts is not None else max(fits, batch))


def _step(training: Training, count: int) -> Callable[[], Any]:
    """What takes a step with so many images, cut from the first batch or repeating it."""
    images, labels = training.batches.peeked
    unlabeled = None
    if training.unlabeled is not None:
        more = training.unlabeled.peeked[0]
        unlabeled = _so_many(more, max(2, round(count * len(more) / len(images))))
    batch = _so_many(images, count), _so_many(labels, count), unlabeled
    return lambda: training.stepper.take(*batch, done=0.0, last=True)


def _so_many(rows: Tensor, count: int) -> Tensor:
    return rows if len(rows) == count else rows.repeat(-(-count // len(rows)), *[1] * (rows.dim() - 1))[:count]


def passes(training: Training) -> dict[str, Passes]:
    """Images through the model for each training image, by part: the attack, the update, and the views of pretext tasks.

    How often an attack asks is seen in a step of two images. The forwards that `checkpointing` repeats are not counted.
    """
    robust_loss = training.robust_loss
    asks = _asks(training, robust_loss.attack)
    if training.late is not None:
        asks = asks.times(LATE).plus(_asks(training, training.late).times(1 - LATE))
    once = Passes(1.0, 1.0)
    clean = 1.0 if robust_loss.objective.needs_clean else 0.0
    updates = (1 + clean) * (2 if robust_loss.awp else 1)
    views = float(robust_loss.heads.views) if robust_loss.heads.drawn else 0.0
    attacked = robust_loss.attack_tasks != "none"
    each = once.plus(asks) if attacked else once  # of a view
    found = {
        "attack": asks.plus(Passes(clean, 0.0)),
        "update": once.times(updates),
        "views": each.times(views),
    }
    if training.unlabeled is not None:
        share = len(training.unlabeled.peeked[0]) / len(training.batches.peeked[0])
        own = len(robust_loss.heads.drawn) < len(robust_loss.heads.tasks)  # a pass that the tasks share
        more = (once.plus(asks) if robust_loss.attack_tasks == "joint" else once).times(float(own))
        found["views"] = found["views"].plus(each.times(views).plus(more).times(share))
    return found


def _asks(training: Training, attack: Attack) -> Passes:
    """How often the attack asks for each image, seen in a step of two."""
    robust_loss = training.robust_loss
    asked, own = _Asked(attack), robust_loss.attack
    robust_loss.attack = asked
    try:
        _step(training, 2)()
    finally:
        robust_loss.attack = own
    return asked.found


class _Asked:
    """An attack that counts how often it asks for the losses of an image, with and without gradients, the first time."""

    def __init__(self, attack: Attack) -> None:
        self.attack, self.found = attack, Passes(0.0, 0.0)
        self.called = False

    def __call__(self, loss_of: LossOf, images: Tensor, threat: Any, *, generator: torch.Generator) -> Tensor:
        if self.called:  # in views, which other calls are for, it asks as often
            return self.attack(loss_of, images, threat, generator=generator)
        self.called = True

        def counted(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            def asks(candidates: Tensor) -> Tensor:
                back = candidates.requires_grad and torch.is_grad_enabled()
                share = len(candidates) / len(images)
                self.found = self.found.plus(Passes(share, share * back))
                return function(candidates)

            return asks

        logits_of = None if loss_of.logits_of is None else counted(loss_of.logits_of)
        goal = LossOf(counted(loss_of), labels=loss_of.labels, logits_of=logits_of)
        return self.attack(goal, images, threat, generator=generator)
