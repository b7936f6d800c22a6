"""Aliases of types that several packages take from users; nothing is imported from torch until it is needed."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import torch

PathLike: TypeAlias = "str | os.PathLike[str]"
DeviceLike: TypeAlias = "str | torch.device"
# Mean or std of the model's input: one number for all channels, or one for each.
Channels: TypeAlias = "float | Sequence[float] | torch.Tensor"
# A batch of a user's loader: (images, labels, …), a dict of both, or images alone.
UserBatch: TypeAlias = "Sequence[Any] | Mapping[str, Any] | torch.Tensor"
Loader: TypeAlias = "Iterable[Any]"
# A choice of the user's, or one by measurement.
AutoBool: TypeAlias = bool | Literal["auto"]
# Whatever JSON holds: what run.json, plan.yaml and records are made of.
Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
