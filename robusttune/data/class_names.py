"""The names of classes that a data set knows, and their number beside that of a model's outputs."""

import logging
from collections.abc import Iterable, Mapping, Sequence

from timm.utils.misc import natural_key

from robusttune.types import Loader

SHOWN = 8

logger = logging.getLogger("robusttune")


def class_names(loader: Loader) -> list[str] | None:
    """List the names in `classes` of a loader's data set, or of the one that it wraps; None if there are none.

    A `class_to_idx` of the data set, or of timm's reader in it, is read where there are no `classes`. Where the data set has a
    `target_transform`, the names follow the labels that it returns. Where the parts of a ConcatDataset name other classes, a
    warning is logged, and there are none.

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
        return _moved([str(name) for name in known], getattr(dataset, "target_transform", None))
    parts = getattr(dataset, "datasets", None)
    if isinstance(parts, list | tuple):
        by_part = [names for part in parts if (names := _names_of(part)) is not None]
        other = next((names for names in by_part if names != by_part[0]), None)
        if other is not None:
            logger.warning(
                "the parts of the data set name other classes, %s and %s, so a label may mean several of them: give all parts the "
                "same classes in the same order",
                *(f"[{shown(each)}]" for each in (by_part[0], other)),
            )
            return None
        return by_part[0] if len(by_part) == len(parts) and by_part else None
    return None if inner is None or inner is dataset else _names_of(inner)


def _moved(names: list[str], target_transform: object) -> list[str] | None:
    """List the names by the labels that a `target_transform` returns; None if these are not 0, 1, 2, … one for each name.

    A transform that has `classes` names them itself.
    """
    stated = getattr(target_transform, "classes", None)
    if stated is not None or not callable(target_transform):
        return names if stated is None else list(stated)
    try:
        labels = [int(target_transform(row)) for row in range(len(names))]
    except Exception:  # it may want another kind of label
        return None
    by_label = dict(zip(labels, names, strict=True))
    return [by_label[label] for label in range(len(names))] if set(labels) == set(range(len(names))) else None


def in_timm_order(names: Iterable[str]) -> list[str]:
    """Sort names by the numbers in them, as timm numbers classes: "2" before "10".

    Example:
        >>> in_timm_order(["10", "9"]), sorted(["10", "9"])
        (['9', '10'], ['10', '9'])
    """
    return sorted(names, key=natural_key)


def shown(names: Sequence[str]) -> str:
    """List names, of many the first ones."""
    return ", ".join(names[:SHOWN]) + (f" … ({len(names)} in all)" if len(names) > SHOWN else "")


def two_orders(names: Sequence[str]) -> str | None:
    """Describe the two orders in which these names may have been numbered; None if there is only one."""
    one, other = sorted(names), in_timm_order(names)
    if one == other:
        return None
    row = next(row for row, (first, second) in enumerate(zip(one, other, strict=True)) if first != second)
    return (
        f"class {row} may be {one[row]!r} (sorted as text, as torchvision's ImageFolder numbers them: {shown(one)}) or "
        f"{other[row]!r} (sorted by number, as timm does: {shown(other)})"
    )


def moved(names: Sequence[str], others: Sequence[str]) -> list[str]:
    """List the names with another position in the other list; names that it does not have are left out.

    Example:
        >>> moved(["cat", "dog"], ["dog", "cat"]), moved(["cat", "dog"], ["a cat", "a dog"])
        (['cat', 'dog'], [])
    """
    return [name for name, other in zip(names, others, strict=False) if name != other and name in others]


def doubt_of_outputs(loader: Loader, outputs: int) -> str | None:
    """Return what may be wrong where a model has more outputs than the loader's data set has names of classes.

    Nothing is said of a data set with a `target_transform`, which may map the named classes to others.

    Raises:
        ValueError: there are fewer outputs than names.
    """
    names = class_names(loader)
    if names is None or len(names) == outputs or _maps_labels(loader):
        return None
    if len(names) > outputs:
        raise ValueError(
            f"the model has {outputs} outputs, but loader.dataset.classes names {len(names)} classes: give it a classifier of "
            f"{len(names)} outputs (in timm, num_classes={len(names)}), or map the labels to its classes in a target_transform"
        )
    return (
        f"the model has {outputs} outputs, but loader.dataset.classes names {len(names)} classes: unless the labels are rows of "
        f"these outputs, give it a classifier of {len(names)} (in timm, num_classes={len(names)}) and train that first, as "
        "finetune= of harden does"
    )


def _maps_labels(loader: Loader) -> bool:
    """Return True if the loader's data set, or one that it wraps, has a `target_transform`."""
    dataset = getattr(loader, "dataset", None)
    while dataset is not None:
        if getattr(dataset, "target_transform", None) is not None:
            return True
        inner = getattr(dataset, "dataset", None)
        dataset = None if inner is dataset else inner
    return False
