"""The range test: whether the preset's limit of the gradient suits the user's model, tried before the first step."""

import copy
import itertools
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from statistics import median

from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from robusttune.attacks.nfgsm import nfgsm
from robusttune.data import sharding
from robusttune.data.epochs import CheckedBatch
from robusttune.measuring.record import percent
from robusttune.measuring.subject import NotFinite
from robusttune.model.checks import has_batch_norm
from robusttune.run import distributed, files
from robusttune.run.about import read_facts
from robusttune.run.folder import inexact, write_run
from robusttune.run.log import tell
from robusttune.training.batch import LoadedBatch
from robusttune.training.checkpoints import restore, state_of
from robusttune.training.loop import Training
from robusttune.training.micro_batches import micro_batches
from robusttune.training.presets import chosen_preset
from robusttune.training.schedule import RAMP
from robusttune.training.settings import RunSettings
from robusttune.training.validation import Score, score
from robusttune.types import Loader

SAMPLERS = (SequentialSampler, RandomSampler, SubsetRandomSampler, WeightedRandomSampler, DistributedSampler)
STEPS = 64  # optimiser steps of a course
JUDGED = 128  # least number of images that a course is judged on
LEAST = 480  # least number of steps of a run for which a range test pays
MEASURED = 8  # batches whose gradients are measured
STEEP = 25.0  # multiple of the limit; with a larger median norm of the gradient, a range test is made
WIDER = 5.0  # multiple of the limit: the wider limit that is tried
CLEAR = 3.0  # standard errors
SHARE = 0.1  # share of a time budget: the most that a range test may take


def find_limit(training: Training, settings: RunSettings, *, resumed: bool) -> None:
    """Choose the largest norm of the gradient for this model: the preset's, or five times as large if that is clearly better.

    Larger gradients are scaled down to this limit, so if all are far larger, each step is small, whatever the learning rate is.
    The test has three parts, and after each of them the run returns to its state at the start:

    1. It measures the gradients of a few batches. If their median norm is at most 25 times the limit, the limit stays.
    2. It takes 64 steps at full eps, with a learning rate that falls to 0, and then attacks the next images in eval mode. If more of
       them withstand that than a guess would get right, the limit stays.
    3. It does the same with the larger limit, which is chosen if it is better by three standard errors.

    `run.json` has the figures. The limit stays untested in short runs, if the user has set the values, if images cannot be read again, if
    the test may take more than a tenth of `time_budget` (to which its seconds are not counted), and in a run that was restored from a
    checkpoint.

    Source: after the range test of Smith, arXiv:1506.01186, which compares training losses. Here these are misleading: the attack
    sees batch norms in eval mode, and its images may do little harm in train mode, in which the loss is computed.
    """
    usual = chosen_preset(settings.adversary.preset).clip_grad
    if resumed or settings.function != "harden" or usual is None or not _worth_it(training, settings):
        return
    start, attack = copy.deepcopy(state_of(training)), training.robust_loss.attack
    judged: dict[float, Score | None] = {}
    try:
        norm = _median_norm(training)
        if norm is not None and norm > STEEP * usual:
            training.robust_loss.attack = nfgsm
            _back_to(start, training)
            judged[usual] = _course(training, usual)
            if not _learns(judged[usual], training):
                _back_to(start, training)
                judged[WIDER * usual] = _course(training, WIDER * usual)
    finally:
        training.robust_loss.attack = attack
        _back_to(start, training)
    if norm is None:
        return
    taken = max(judged, key=lambda limit: _share(judged[limit]), default=usual)
    if taken != usual and _is_clearly_better(judged[taken], judged[usual]):
        training.stepper.recipe = replace(training.stepper.recipe, clip_grad=taken)
    _say(training, usual, norm, judged, show=settings.output.progress)


def _worth_it(training: Training, settings: RunSettings) -> bool:
    """Return True if a range test is worthwhile: a long run with the preset's values, whose images can be read again exactly."""
    stepper, updates, steps = training.stepper, settings.updates, training.progress.steps
    chosen = (updates.optimizer, updates.scheduler, updates.lr, updates.clip_grad)
    ours = all(value is None for value in chosen) and stepper.recipe.optimizer == "sgd"
    clips = stepper.recipe.clip_grad == chosen_preset(settings.adversary.preset).clip_grad
    long = steps is not None and distributed.agreed(float(steps), stepper.device) >= LEAST
    again = _can_read_again(training.batches.loader) and training.unlabeled is None
    return bool(ours and clips and long and again and stepper.threat.eps)


def _can_read_again(loader: Loader) -> bool:
    """Return True if the loader yields the same images again from the same random states, also where it was left half-way."""
    parts = getattr(loader, "loaders", (loader,))
    return not inexact(loader) and all(
        type(each) is DataLoader and type(each.batch_sampler) is BatchSampler and type(each.sampler) in SAMPLERS
        for each in parts
    )


def _back_to(start: Mapping[str, object], training: Training) -> None:
    """Bring the run back to its state at the start."""
    restore(training, copy.deepcopy(start))
    training.robust_loss.watch.begin()


def _median_norm(training: Training) -> float | None:
    """Return the median norm of the gradients of a few batches; None if a test would take too much of the time."""
    norms: list[float] = []
    began = time.perf_counter()
    for images, labels in itertools.islice(_batches(training), MEASURED):
        norms.append(_norm(training, LoadedBatch(images, labels, None)))
        if len(norms) == 1:  # it may take longer than all others
            began = time.perf_counter()
        elif not _is_in_time(training, (time.perf_counter() - began) / (len(norms) - 1)):
            return None
    return distributed.agreed(median(norms), training.stepper.device)


def _norm(training: Training, batch: LoadedBatch) -> float:
    """Return the norm of the gradient of one batch, in as many parts as a step takes it."""
    stepper, robust_loss = training.stepper, training.robust_loss
    for part in micro_batches(batch, stepper.micro_batch, robust_loss.model):
        images, labels, _ = part.to(stepper.device)
        with stepper.precision.autocast(stepper.device):
            loss = robust_loss(images, labels)["loss"]
        (loss * (len(images) / len(batch.images))).backward()
    norm = float(nn.utils.get_total_norm(each.grad for each in robust_loss.parameters() if each.grad is not None))
    stepper.drop()
    return norm


def _is_in_time(training: Training, seconds: float) -> bool:
    """Return True if a range test takes a small part of the time budget, or there is none.

    Args:
        seconds: the seconds that a batch takes, including the time to read it.
    """
    length = training.progress.length
    if length.time_budget is None:
        return True
    steps = MEASURED + 2 * STEPS * length.accumulate
    return steps * distributed.agreed(seconds, training.stepper.device) <= SHARE * length.time_budget


def _course(training: Training, limit: float) -> Score | None:
    """Take the steps of a course; return how many of the next images withstand an attack, or None if weights are not finite."""
    stepper, batches = training.stepper, _batches(training)
    stepper.recipe = replace(stepper.recipe, clip_grad=limit)
    count, began = STEPS * training.progress.length.accumulate, RAMP[1]  # from `began` on all of eps
    for step, (images, labels) in enumerate(itertools.islice(batches, count)):
        stepper.take(LoadedBatch(images, labels, None), done=began + (1 - began) * step / count, last=False)
    judged: list[CheckedBatch] = []
    while sum(len(images) for images, _ in judged) < JUDGED:
        judged.append(next(batches))
    try:
        return score(training.robust_loss, judged, stepper.threat, stepper.micro_batch)
    except NotFinite:
        return None


def _batches(training: Training) -> Iterator[CheckedBatch]:
    """Yield batches as the run does, epoch after epoch."""
    batches, classes = training.batches, training.robust_loss.classifier.classes
    least = 1 + has_batch_norm(training.robust_loss.model)
    for number in itertools.count():
        sharding.set_epoch(batches.loader, number)
        for images, labels in batches.epoch(number, classes=classes, device=training.stepper.device):
            if len(images) >= least:
                yield images, labels


def _share(judged: Score | None) -> float:
    return 0.0 if judged is None else judged.robust


def _learns(judged: Score | None, training: Training) -> bool:
    """Return True if more images withstand the attack than a model gets right that guesses."""
    if judged is None:
        return False
    guess = 1 / training.robust_loss.classifier.classes
    return judged.balanced > guess + CLEAR * math.sqrt(guess * (1 - guess) / judged.images)


def _is_clearly_better(one: Score | None, other: Score | None) -> bool:
    """Return True if more images withstand the attack after one course than after another, by three standard errors."""
    if one is None:
        return False
    mean = (_share(one) + _share(other)) / 2
    return _share(one) - _share(other) > CLEAR * math.sqrt(2 * mean * (1 - mean) / one.images)


def _say(training: Training, usual: float, norm: float, judged: Mapping[float, Score | None], *, show: bool) -> None:
    """Write what was tried and taken to `run.json`; log it where it is not the preset's."""
    taken, folder = float(training.stepper.recipe.clip_grad or 0), training.checkpoints.folder
    if distributed.rank() != 0:
        return
    if taken != usual:
        tell(
            f"range test: gradients are clipped at {taken:g}, not at {usual:g}, as their norm is {norm:.0f} at the start: after "
            f"{STEPS} steps {percent(_share(judged[taken]))} of the next images withstand the attack, {percent(_share(judged[usual]))} with {usual:g}",
            show,
        )
    if folder is not None:
        robust = {f"{limit:g}": None if each is None else each.robust for limit, each in judged.items()}
        found = {"steps": STEPS, "norm": norm, "robust": robust, "clip_grad": taken}
        write_run(folder, {**read_facts(folder / files.RUN), "range_test": found})
