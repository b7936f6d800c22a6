"""A dispatch mode that refuses what would make the program wait for an accelerator."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class NoWaiting(TorchDispatchMode):
    """Refuses what would make the program wait for an accelerator."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique", "equal.default", "is_nonzero", "lift_fresh")

    def __init__(self, but=None):
        super().__init__()
        self.waits = [word for word in self.WAITS if word != but]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        booleans = "index" in name and any(
            isinstance(each, torch.Tensor) and each.dtype == torch.bool
            for each in (args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ())
        )
        assert not booleans, f"{name} by booleans waits"
        assert not any(word in name for word in self.waits), f"{name} waits"
        return func(*args, **(kwargs or {}))
