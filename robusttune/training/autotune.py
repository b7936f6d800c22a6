"""The fast path of a run, chosen by measuring a few steps at its start."""

import time
from collections.abc import Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor

from robusttune.model.borrowing import attacking, evaluating
from robusttune.model.cuda_graphs import Graphs
from robusttune.model.features import forward
from robusttune.model.timing import PAYS, TURNS, how_much_faster, synchronize
from robusttune.run import distributed
from robusttune.run.log import tell
from robusttune.training.loop import Training

WORTH_MEASURING = 200  # optimiser steps
COMPILING = 120.0  # seconds, of the slower models on two cores
LIKELY = 1.1  # how much faster compiled attacks are at least, where they are faster at all
MARGIN = 2.0  # times what compiling costs, to be saved by it
KEPT = 1.05


def check_choices(given: Mapping[str, Any]) -> None:
    """Raise a ValueError for choices that are neither True, False nor "auto"."""
    for name in ("compile", "tune"):
        wanted = given.get(name, "auto")
        if not isinstance(wanted, bool) and wanted != "auto":
            raise ValueError(f"{name} is {wanted!r}, but it must be True, False or 'auto'")


def choose(training: Training, given: Mapping[str, Any], *, resumed: bool) -> None:
    """Choose how attacks are run, and tell; a run that was resumed goes on with what was chosen for it.

    Args:
        given: `tune` and `compile` of the user.
        resumed: the choice has been made.
    """
    tune, compiles = given.get("tune", False), given["compile"]
    if given.get("checkpointing"):
        return
    if tune is True and compiles is not True and training.stepper.device.type == "cuda":
        training.robust_loss.passes.replay(Graphs())
    if resumed:
        return
    images, labels = training.batches.peeked
    _fold(tune, training, images, given["progress"])
    if compiles is True:
        training.robust_loss.passes.compile("whole")
    elif compiles == "auto" and tune is not False:
        _compile(training, images, labels, given["progress"])


def _fold(wanted: bool | str, training: Training, images: Tensor, progress: bool) -> None:
    """Fold batch norms for the attack, where that is asked for or found to be faster."""
    robust_loss, steps = training.robust_loss, training.plan.steps
    if wanted is False or (wanted == "auto" and steps is not None and steps < WORTH_MEASURING):
        return
    copy = robust_loss.fold(images)
    # Processes that disagree would wait for each other for ever.
    if distributed.summed([copy is not None], training.stepper.device)[0] < distributed.world():
        robust_loss.fold(None)
        if wanted is True:
            tell("there are no batch norms that could be folded for the attack", progress)
        return
    gain = ""
    if wanted == "auto":
        times = _gain_of_folding(training, images)
        if times < PAYS:
            robust_loss.fold(None)
            return
        gain = f", which makes it {times:.1f} times as fast"
    count = 0 if copy is None else len(copy.pairs)
    tell(f"{count} batch norms are folded into convolutions for the attack{gain}", progress)


def _gain_of_folding(training: Training, images: Tensor) -> float:
    robust_loss, device = training.robust_loss, training.stepper.device
    pixels = robust_loss.pixels.pixels(images[: training.stepper.micro_batch].to(device))
    copy, inputs = robust_loss.passes.folded, robust_loss.pixels.inputs(pixels)
    if copy is None:
        return 1.0

    def plain(given: Tensor) -> tuple[Tensor, Tensor]:
        return forward(robust_loss.model, robust_loss.classifier, given)

    autocast = training.stepper.precision.autocast(device)
    with autocast, attacking(robust_loss.model, robust_loss.parameters(), device):
        return distributed.agreed(how_much_faster(copy, plain, inputs), device)


def _compile(training: Training, images: Tensor, labels: Tensor | None, progress: bool) -> None:
    """Compile the attack's passes, where the run is long enough and they are found to be faster."""
    passes, device, plan = training.robust_loss.passes, training.stepper.device, training.plan
    if plan.steps is None or plan.steps < WORTH_MEASURING:
        return
    each = _seconds(training, images, labels)
    parts = -(-len(images) // (training.stepper.micro_batch or len(images)))
    left = (plan.steps - plan.taken) * plan.accumulate * parts * each
    left = distributed.agreed(left if plan.time_budget is None else min(left, plan.time_budget), device)
    if left * (1 - 1 / LIKELY) < MARGIN * COMPILING:
        return
    passes.compile("attack")
    began = time.perf_counter()
    _seconds(training, images, labels)
    cost = time.perf_counter() - began - each
    gain = _gain_of_compiling(training, images, labels)
    works = distributed.summed([passes.compiled != "no"], device)[0] == distributed.world()
    if works and gain >= KEPT:
        tell(
            f"attacks are compiled, which makes them {gain:.2f} times as fast and took {cost:.0f} s of the "
            f"{left / 60:.0f} minutes expected",
            progress,
        )
        return
    if works:
        tell(f"compiled attacks, made in {cost:.0f} s, are {gain:.2f} times as fast: it goes on without", progress)
    passes.compile("no")


def _gain_of_compiling(training: Training, images: Tensor, labels: Tensor | None) -> float:
    """How many times as fast a step is with the attack compiled, as it is now, as without: the median of turns."""
    passes, ratios = training.robust_loss.passes, []
    for _ in range(TURNS):
        with passes.uncompiled():
            without = _seconds(training, images, labels)
        ratios.append(without / _seconds(training, images, labels))
    return distributed.agreed(median(ratios), training.stepper.device)


def _seconds(training: Training, images: Tensor, labels: Tensor | None) -> float:
    """How long the forward half of a step takes, attack included, of (a part of) a batch: nothing is changed by it."""
    robust_loss, device, most = training.robust_loss, training.stepper.device, training.stepper.micro_batch
    given = images[:most].to(device), None if labels is None else labels[:most].to(device)
    synchronize(device)
    began = time.perf_counter()
    with evaluating(robust_loss), torch.no_grad(), training.stepper.precision.autocast(device):
        robust_loss(*given)
    synchronize(device)
    return time.perf_counter() - began
