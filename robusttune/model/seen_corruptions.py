"""Corruptions that a model was trained on in this process, for evaluations to mark those they measure again.

They are remembered per module and not passed in a signature, because the user calls `harden` and `evaluate` separately,
with nothing but the model in common. A weak dictionary writes nothing into the user's model and does not keep it alive.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from torch import nn

_SEEN: WeakKeyDictionary[nn.Module, frozenset[str]] = WeakKeyDictionary()


def remember(model: nn.Module, names: Iterable[str]) -> None:
    """Add the names of corruptions to those that the model was trained on."""
    seen = trained_on(model) | frozenset(names)
    if seen:
        _SEEN[model] = seen


def trained_on(model: nn.Module) -> frozenset[str]:
    """Return the names of the corruptions that this process has trained the model on."""
    return _SEEN.get(model, frozenset())


@contextmanager
def forgotten(model: nn.Module) -> Iterator[None]:
    """Restore the model's corruptions afterwards, so that nothing inside counts as training."""
    before = _SEEN.get(model)
    try:
        yield
    finally:
        _SEEN.pop(model, None)
        if before is not None:
            _SEEN[model] = before
