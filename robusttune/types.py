"""Aliases of types of arguments in several packages. Nothing is imported from torch at run time."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Union

if TYPE_CHECKING:
    import torch

PathLike: TypeAlias = str | os.PathLike[str]
# With names in quotes, `X | Y` would fail at run time.
DeviceLike: TypeAlias = Union[str, "torch.device"]
# Mean or std of the model's input: one number for all channels, or one for each.
Channels: TypeAlias = Union[float, Sequence[float], "torch.Tensor"]
# A user's loader yields batches of any of these forms: (images, labels, …), a dict of both, or images alone.
Loader: TypeAlias = Iterable[Any]
# A choice of the user's, or one by measurement.
AutoBool: TypeAlias = bool | Literal["auto"]
# The values that JSON can hold: what run.json, plan.yaml and records are made of.
Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None
