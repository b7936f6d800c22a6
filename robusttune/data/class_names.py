"""The names of classes that a data set knows."""

import logging
from collections.abc import Mapping

from robusttune.types import Loader

SHOWN = 8

logger = logging.getLogger("robusttune")


def class_names(loader: Loader) -> list[str] | None:
    """List the names in `classes` of a loader's data set, or of the one that it wraps; None if there are none.

    A `class_to_idx` of the data set, or of timm's reader in it, is read where there are no `classes`. Where the parts of a
    ConcatDataset name other classes, a warning is logged, and there are none.

    Example:
        >>> from types import SimpleNamespace
        >>> class_names(SimpleNamespace(dataset=SimpleNamespace(dataset=SimpleNamespace(classes=["cat", "dog"]))))
        ['cat', 'dog']
    """
    return _names_of(getattr(loader, "dataset", None))


def _names_of(dataset: object) -> list[str] | None:
    known, inner = getattr(dataset, "classes", None), getattr(dataset, "dataset", None)
    numbers = getattr(dataset, "class_to_idx", None) or getattr(getattr(dataset, "reader", None), "class_to_idx", None)
    if known is None and isinstance(numbers, Mapping) and sorted(numbers.values()) == list(range(len(numbers))):
        known = sorted(numbers, key=lambda name: numbers[name])
    if isinstance(known, list | tuple) and known and all(isinstance(name, str | int) for name in known):
        return [str(name) for name in known]
    parts = getattr(dataset, "datasets", None)
    if isinstance(parts, list | tuple):
        by_part = [names for part in parts if (names := _names_of(part)) is not None]
        other = next((names for names in by_part if names != by_part[0]), None)
        if other is not None:
            logger.warning(
                "the parts of the data set name other classes, %s and %s, so a label may mean several of them: give all parts the "
                "same classes in the same order",
                *(_shown(by_part[0]), _shown(other)),
            )
            return None
        return by_part[0] if len(by_part) == len(parts) and by_part else None
    return None if inner is None or inner is dataset else _names_of(inner)


def _shown(names: list[str]) -> str:
    return f"[{', '.join(names[:SHOWN])}{' …' * (len(names) > SHOWN)}]"
