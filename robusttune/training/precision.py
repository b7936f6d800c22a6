"""The number format of forward and backward passes."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

FIRST_SCALE = 2.0**10  # torch's 2**16 skips the first steps of a short run
FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """A number format for forward and backward passes; weights, images and perturbations stay as they are."""

    name: str = "fp32"

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """The context in which forward passes run."""
        return nullcontext() if self.name == "fp32" else torch.autocast(device.type, FORMATS[self.name])

    def scaler(self, device: torch.device) -> Any:
        """What keeps small gradients of fp16 above zero; it does nothing for other formats."""
        return torch.amp.GradScaler(device.type, init_scale=FIRST_SCALE, enabled=self.name == "fp16")


def chosen_precision(wanted: str, device: torch.device) -> Precision:
    """The format that was named; with "auto", bf16 on an NVIDIA GPU that has units for it, else fp32.

    Raises:
        ValueError: an unknown name.
    """
    if wanted == "auto":
        fast = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        return Precision("bf16" if fast else "fp32")
    if wanted not in FORMATS:
        raise ValueError(f"precision is {wanted!r}, but it must be one of 'auto', {', '.join(map(repr, FORMATS))}")
    return Precision(wanted)
