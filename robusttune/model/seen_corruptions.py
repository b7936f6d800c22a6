"""Which corruptions a model was trained on, as far as this process knows: remembered beside the model, not in it."""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

_KNOWN: dict[int, tuple[weakref.ref[nn.Module], frozenset[str]]] = {}


def remember(model: nn.Module, names: Iterable[str]) -> None:
    """Keep in mind that a model was trained on these corruptions, as long as it lives."""
    every = trained_on(model) | frozenset(names)
    if every:
        number = id(model)
        _KNOWN[number] = (weakref.ref(model, lambda _: _KNOWN.pop(number, None)), every)


def trained_on(model: nn.Module) -> frozenset[str]:
    """The names of the corruptions that this model is known to have been trained on."""
    held, names = _KNOWN.get(id(model), (None, frozenset[str]()))
    return names if held is not None and held() is model else frozenset()


@contextmanager
def forgotten(model: nn.Module) -> Iterator[None]:
    """Let nothing that happens meanwhile count as training of the model."""
    before = _KNOWN.get(id(model))
    try:
        yield
    finally:
        _KNOWN.pop(id(model), None)
        if before is not None:
            _KNOWN[id(model)] = before
