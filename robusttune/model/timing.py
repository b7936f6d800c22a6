"""Timing of forward and backward passes on any device."""

import time
from collections.abc import Callable, Sequence
from statistics import median

import torch
from torch import Tensor

PAYS = 1.15
TURNS = 3
Run = Callable[[Tensor], Sequence[Tensor]]


def how_much_faster(fast: Run, plain: Run, inputs: Tensor) -> float:
    """Measure the speed-up of one forward, with its gradient toward the inputs, over another: the median of turns.

    Args:
        fast, plain: functions of the inputs, whose first output is differentiated.
        inputs: (N,C,H,W); not changed.
    """

    def seconds(run: Run) -> float:
        images = inputs.detach().clone().requires_grad_()
        synchronize(inputs.device)
        start = time.perf_counter()
        torch.autograd.grad(run(images.clone())[0].sum(), images)  # a copy, as some models write into their input
        synchronize(inputs.device)
        return time.perf_counter() - start

    seconds(fast), seconds(plain)
    return median(seconds(plain) / seconds(fast) for _ in range(TURNS))


def synchronize(device: torch.device) -> None:
    """Wait until an accelerator has finished its work; return at once for the CPU."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
