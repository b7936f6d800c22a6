"""Timing of forward and backward passes on any device."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor

PAYS = 1.15
TURNS = 3


def how_much_faster(fast: Callable[[Tensor], Any], plain: Callable[[Tensor], Any], inputs: Tensor) -> float:
    """How many times as fast one forward with its gradient toward the inputs is as another: the median of turns."""

    def seconds(run: Callable[[Tensor], Any]) -> float:
        given = inputs.detach().clone().requires_grad_()
        synchronize(inputs.device)
        began = time.perf_counter()
        torch.autograd.grad(run(given)[0].sum(), given)
        synchronize(inputs.device)
        return time.perf_counter() - began

    seconds(fast), seconds(plain)
    return median(seconds(plain) / seconds(fast) for _ in range(TURNS))


def synchronize(device: torch.device) -> None:
    """Let an accelerator finish what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
