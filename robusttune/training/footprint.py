"""The peak memory of a run, measured on a few of its steps; its weights change."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from robusttune.model.devices import tensors_of
from robusttune.training.checkpoints import state_of
from robusttune.training.loop import Training
from robusttune.training.memory import bytes_of, free_bytes, peak_of
from robusttune.training.profiling import one_step, sized_batch

USABLE = 0.9  # share of free memory: the rest is lost between what is allocated


class Memory(NamedTuple):
    """Peak memory of a run in bytes, and the largest batch that would fit; None if free memory is not known."""

    peak: int
    largest_batch: int | None


def memory(training: Training) -> Memory:
    """Measure the peak memory of two batches, and extrapolate the largest batch by a straight line through two small ones.

    The line is of the tensors of forward and backward passes, without the gradients of weights, which do not grow with the
    batch and of small batches take more. What the allocator adds is uneven there, so it gets its share of the whole batch.
    """
    device, batch = training.stepper.device, len(training.batches.peeked[0])
    kept, free = kept_bytes(training), free_bytes(device)
    measured = peak_of(_batches(training, batch), device)
    peak = kept + max(measured.whole, _at_the_end_of_an_epoch(training))
    small, larger = max(2, batch // 4), max(4, batch // 2)
    with _gradients_dropped(training):
        low, high = (peak_of(_passes(training, count), device).tensors for count in (small, larger))
    slope = (high - low) / (larger - small)
    if free is None or slope <= 0:
        return Memory(peak, None)
    room = USABLE * free * measured.tensors / measured.whole
    fits = int((room - (low - slope * small)) / slope)
    return Memory(peak, max(fits, 0 if training.stepper.micro_batch is not None else batch))


def _passes(training: Training, count: int) -> Callable[[], object]:
    """Return a function that runs forward and backward on a whole batch of this size, without an optimiser step."""
    stepper, batch = training.stepper, sized_batch(training, count)

    def work() -> None:
        images, labels, unlabeled = batch.to(stepper.device)
        with stepper.precision.autocast(stepper.device):
            out = training.robust_loss(images, labels, unlabeled=unlabeled)
        out["loss"].backward()

    return work


@contextmanager
def _gradients_dropped(training: Training) -> Iterator[None]:
    """Drop the gradient of each weight inside this context as soon as it is computed."""

    def drop(weight: Tensor) -> None:
        weight.grad = None

    weights = [each for each in training.robust_loss.parameters() if each.requires_grad]
    hooks = [each.register_post_accumulate_grad_hook(drop) for each in weights]  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def kept_bytes(training: Training) -> int:
    """Sum the bytes of what a run keeps on its device from one step to the next.

    That is its state (weights, optimiser, average), the teacher and the folded copy; the copy of the model's weights that
    comes back after an error; the weights in their old order, where the run changed it to channels_last; and one copy to go
    back to, the start or the best epoch, which an accelerator keeps only if held-out images choose an epoch before the last.
    """
    robust_loss, device = training.robust_loss, training.stepper.device
    modules = [
        training.teacher and training.teacher.answers,
        robust_loss.passes.folded and robust_loss.passes.folded.copy,
    ]
    others = [tensor for module in modules if isinstance(module, nn.Module) for tensor in tensors_of(module)]
    weights = list(tensors_of(robust_loss.model))
    reordered = [each for each in weights if each.layout == torch.strided and not each.is_contiguous()]
    kept = bytes_of([*tree_leaves(state_of(training)), *others]) + bytes_of(weights) + bytes_of(reordered)
    chosen = training.validation.loader is not None and training.progress.length.epochs > 1
    return kept + (bytes_of(robust_loss.state_dict().values()) if chosen or device.type == "cpu" else 0)


def _at_the_end_of_an_epoch(training: Training) -> int:
    """Sum the bytes of the copies of weights that a run makes at the end of an epoch, beside what it keeps."""
    averaged = training.stepper.average is not None  # the present weights are put aside, while the averages are copied
    return (1 + averaged) * bytes_of(training.robust_loss.state_dict().values())


def _batches(training: Training, count: int) -> Callable[[], object]:
    """Return a function that takes two batches of this size, in one step where the run accumulates gradients."""
    first, second = one_step(training, count, last=False), one_step(training, count)
    return lambda: (first(), second())
