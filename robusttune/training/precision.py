"""The number format of forward and backward passes."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from robusttune.training.settings import PrecisionName
from robusttune.types import says, shown

FIRST_SCALE = 2.0**10  # torch's 2**16 skips the first steps of a short run
FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def autocast(device: torch.device, dtype: torch.dtype | None) -> Iterator[None]:
    """Autocast to this format inside the context (None: no autocast), with an empty cache of cast weights at its start and end.

    torch empties that cache only at the end of the outermost autocast. Inside another autocast, the model would go on with the
    cast weights of the step before.
    """
    torch.clear_autocast_cache()
    try:
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            yield
    finally:
        torch.clear_autocast_cache()


@dataclass(frozen=True)
class Precision:
    """A number format for forward and backward passes; weights, images and perturbations keep theirs."""

    name: str = "fp32"

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return the autocast context for forward passes."""
        return nullcontext() if self.name == "fp32" else autocast(device, FORMATS[self.name])

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """Return the scaler that keeps small gradients of fp16 above zero; it does nothing for other formats."""
        return torch.amp.GradScaler(device.type, init_scale=FIRST_SCALE, enabled=self.name == "fp16")


def chosen_precision(name: PrecisionName, device: torch.device) -> Precision:
    """Return the number format of this name; "auto" is bf16 on an NVIDIA GPU with hardware for it, else fp32.

    Raises:
        ValueError: an unknown name.
    """
    if says(name, "auto"):
        fast = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        return Precision("bf16" if fast else "fp32")
    if not isinstance(name, str) or name not in FORMATS:
        raise ValueError(f"precision is {shown(name)}, but it must be one of 'auto', {', '.join(map(repr, FORMATS))}")
    return Precision(name)
