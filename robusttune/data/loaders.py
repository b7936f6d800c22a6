"""Checks of a user's loader."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset


def check_loader(loader: Any, name: str = "loader", *, passes: int = 1) -> None:
    """Raise a ValueError unless this is something that yields batches, and can be gone through so many times."""
    if isinstance(loader, Dataset) and not hasattr(loader, "__iter__"):
        raise ValueError(
            f"the {name} is a {type(loader).__name__}, a data set of single images, but batches are needed: wrap it in a "
            "DataLoader, such as torch.utils.data.DataLoader(data, batch_size=128, shuffle=True)"
        )
    sequence = isinstance(loader, Iterable) or hasattr(loader, "__getitem__")
    if not sequence or isinstance(loader, str | Mapping | Tensor):
        raise ValueError(
            f"the {name} is a {type(loader).__name__}, but something that yields batches is needed: pass a DataLoader, "
            "or a list of (images, labels)"
        )
    if passes > 1 and is_exhaustible(loader):
        raise ValueError(
            f"the {name} is an iterator ({type(loader).__name__}), which can be gone through only once, but it is needed "
            f"{passes} times: pass what it was made from, such as the DataLoader itself or a list of batches"
        )


def is_exhaustible(loader: Any) -> bool:
    """Whether the loader is an iterator, which can be gone through only once."""
    # Asking for iter(loader) would start a DataLoader's workers and draw from the global random state.
    return isinstance(loader, Iterator)
