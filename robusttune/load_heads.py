"""The pretext heads of a run that has ended."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from robusttune import checkpoint, lookup
from robusttune.modes import device_of, dtype_of
from robusttune.shapes import patch_size_of
from robusttune.tasks._heads import Heads


def load_heads(source: str | Path, model: nn.Module, *, tasks: Mapping[Any, float] | None = None) -> Heads:
    """The pretext heads that a run left in its folder, on the model's device, to go on with: `harden(…, heads=…)`.

    Args:
        source: the folder of a run, or its `heads.safetensors`.
        model: the model that they were trained with, as that run left it.
        tasks: needed for tasks that were given as objects: those objects, {object: weight}.

    Raises:
        ValueError: there are no heads, or they belong to other tasks.

    Example:
        >>> import tempfile, torch, robusttune
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> batches = [(torch.rand(8, 1, 8, 8), torch.arange(8))]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = robusttune.harden(model, batches, epochs=1, tasks={"rotation": 0.5}, out=folder, progress=False)
        ...     heads = load_heads(folder, model)
        >>> list(heads.tasks), heads["rotation"].out_features
        (['rotation'], 4)
    """
    weights = checkpoint.heads_of(source) or {}
    names = list(dict.fromkeys(name.split(".")[1] for name in weights if name.startswith("layers.")))
    if not names:
        raise ValueError(f"{str(source)!r} holds no pretext heads: was that run made with tasks?")
    strange = [name for name in names if name not in lookup.names("tasks")]
    if tasks is None and strange:
        raise ValueError(
            f"{str(source)!r} holds heads of {', '.join(strange)}, which is no task of robusttune: pass it, tasks={{object: 1.0}}"
        )
    wanted = dict.fromkeys(names, 1.0) if tasks is None else tasks
    width = next(weight.shape[1] for weight in weights.values() if weight.dim() == 2)
    heads = Heads(wanted, "all", width, patch_size=patch_size_of(model), seed=0)
    heads.go_on_with(weights)
    return heads.to(device_of(model), dtype_of(model)).eval()
