"""The fast path of a run: folding and compilation for the attack, chosen by timing a few steps at its start."""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from statistics import median

import torch
from torch import Tensor

from robusttune.attacks import differentiates_once
from robusttune.model.borrowing import attacking, evaluating
from robusttune.model.cuda_graphs import Graphs
from robusttune.model.features import forward
from robusttune.model.timing import PAYS, TURNS, how_much_faster, synchronize
from robusttune.run import distributed
from robusttune.run.log import tell
from robusttune.training.loop import Training
from robusttune.training.settings import Speed
from robusttune.types import AutoBool

WORTH_MEASURING = 200  # optimiser steps
COMPILING = 120.0  # seconds, of the slower models on two cores
LIKELY = 1.1  # the speed-up of compiled attacks that is assumed before it is measured
MARGIN = 2.0  # the least expected saving, as a multiple of the compile time
KEPT = 1.05  # the least measured speed-up for which compiled attacks are kept


def choose_fast_path(training: Training, speed: Speed, *, resumed: bool, show: bool) -> None:
    """Choose how the attack's forward passes run, and log it; a resumed run keeps the choice in its checkpoint.

    Args:
        speed: the user's `tune`, `compile` and `checkpointing`.
        resumed: whether the run was restored from a checkpoint.
        show: print the choice, too.
    """
    if speed.checkpointing:
        return
    graphed = speed.compile is not True and training.stepper.device.type == "cuda"
    if speed.tune is True and graphed:
        training.robust_loss.passes.replay(Graphs())
    if resumed:
        return
    images, labels = training.batches.part
    _fold(speed.tune, training, images, show)
    if speed.tune == "auto" and graphed:
        _replay(training, images, labels, show)
    if speed.compile is True:
        training.robust_loss.passes.compile("whole")
    elif speed.compile == "auto" and speed.tune is not False:
        _compile(training, images, labels, show)


def _fold(wanted: AutoBool, training: Training, images: Tensor, show: bool) -> None:
    """Fold batch norms for the attack, if the user asks for it or timing shows that it is faster."""
    robust_loss, steps = training.robust_loss, training.progress.steps
    if wanted is False or (wanted == "auto" and steps is not None and steps < WORTH_MEASURING):
        return
    copy = robust_loss.fold(images)
    # Processes that chose differently would wait for each other forever.
    if distributed.summed([copy is not None], training.stepper.device)[0] < distributed.world():
        robust_loss.fold(None)
        if wanted is True:
            tell("there are no batch norms that could be folded for the attack", show)
        return
    gain = ""
    if wanted == "auto":
        times = _gain_of_folding(training, images)
        if times < PAYS:
            robust_loss.fold(None)
            return
        gain = f", which makes it {times:.1f} times as fast"
    count = 0 if copy is None else len(copy.pairs)
    tell(f"{count} batch norms are folded into convolutions for the attack{gain}", show)


def _gain_of_folding(training: Training, images: Tensor) -> float:
    robust_loss, device = training.robust_loss, training.stepper.device
    pixels = robust_loss.pixels.pixels(images[: training.stepper.micro_batch].to(device))
    copy, inputs = robust_loss.passes.folded, robust_loss.pixels.inputs(pixels)
    if copy is None:
        return 1.0

    def plain(inputs: Tensor) -> tuple[Tensor, Tensor]:
        return forward(robust_loss.model, robust_loss.classifier, inputs)

    autocast = training.stepper.precision.autocast(device)
    with autocast, attacking(robust_loss.model, robust_loss.parameters(), device):
        return distributed.agreed(how_much_faster(copy, plain, inputs), device)


def _replay(training: Training, images: Tensor, labels: Tensor | None, show: bool) -> None:
    """Replay the attack as CUDA graphs, if the run is long enough and timing shows that this is faster."""
    passes, steps = training.robust_loss.passes, training.progress.steps
    if steps is None or steps < WORTH_MEASURING or not differentiates_once(training.robust_loss.attack):
        return
    graphs, ratios = Graphs(level=logging.INFO), [0.0]
    passes.replay(graphs)
    try:
        for _ in range(2):  # the second time, graphs are captured
            _seconds(training, images, labels)
        ratios = _ratios(training, images, labels, passes.unreplayed)
    except torch.OutOfMemoryError:  # the run itself may fit
        passes.replay(None)
    gain = distributed.agreed(median(ratios), training.stepper.device)
    works = distributed.summed([graphs.works], training.stepper.device)[0] == distributed.world()
    if works and gain >= PAYS and passes.graphs is not None:
        tell(f"the attack is replayed as CUDA graphs, which makes its steps {gain:.1f} times as fast", show)
    else:
        passes.replay(None)


def _compile(training: Training, images: Tensor, labels: Tensor | None, show: bool) -> None:
    """Compile the attack's passes, if the run is long enough and timing shows that they are faster."""
    passes, device, progress = training.robust_loss.passes, training.stepper.device, training.progress
    if progress.steps is None or progress.steps < WORTH_MEASURING:
        return
    seconds = _seconds(training, images, labels)
    parts = -(-len(images) // (training.stepper.micro_batch or len(images)))
    left = (progress.steps - progress.taken) * progress.length.accumulate * parts * seconds
    left = distributed.agreed(
        left if progress.length.time_budget is None else min(left, progress.length.time_budget), device
    )
    if left * (1 - 1 / LIKELY) < MARGIN * COMPILING:
        return
    passes.compile("attack")
    began = time.perf_counter()
    _seconds(training, images, labels)
    cost = time.perf_counter() - began - seconds
    ratios = _ratios(training, images, labels, passes.uncompiled)
    gain = distributed.agreed(median(ratios), device)
    works = distributed.summed([passes.compiled != "no"], device)[0] == distributed.world()
    if works and gain >= KEPT:
        passes.replay(None)  # what is compiled is not replayed
        tell(
            f"attacks are compiled, which makes them {gain:.2f} times as fast and took {cost:.0f} s of the "
            f"{left / 60:.0f} minutes expected",
            show,
        )
        return
    if works:
        tell(f"compiled attacks are {gain:.2f} times as fast, too little: the run continues without them", show)
    passes.compile("no")


def _ratios(
    training: Training, images: Tensor, labels: Tensor | None, plainly: Callable[[], AbstractContextManager[None]]
) -> list[float]:
    """Measure how many times as fast as inside a context a step is outside it, in turns."""
    ratios = []
    for _ in range(TURNS):
        with plainly():
            without = _seconds(training, images, labels)
        ratios.append(without / _seconds(training, images, labels))
    return ratios


def _seconds(training: Training, images: Tensor, labels: Tensor | None) -> float:
    """Time the forward half of a step, attack included, on (a part of) a batch; changes nothing."""
    robust_loss, device, most = training.robust_loss, training.stepper.device, training.stepper.micro_batch
    batch = images[:most].to(device), None if labels is None else labels[:most].to(device)
    synchronize(device)
    began = time.perf_counter()
    with evaluating(robust_loss), torch.no_grad(), training.stepper.precision.autocast(device):
        robust_loss(*batch)
    synchronize(device)
    return time.perf_counter() - began
