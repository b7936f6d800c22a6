"""The names of classes that a data set knows."""

from collections.abc import Mapping

from robusttune.types import Loader


def class_names(loader: Loader) -> list[str] | None:
    """List the names in `classes` of a loader's data set, or of the one that it wraps; None if there are none.

    A `class_to_idx` of the data set, or of timm's reader in it, is read where there are no `classes`.

    Example:
        >>> from types import SimpleNamespace
        >>> class_names(SimpleNamespace(dataset=SimpleNamespace(dataset=SimpleNamespace(classes=["cat", "dog"]))))
        ['cat', 'dog']
    """
    dataset = getattr(loader, "dataset", None)
    while dataset is not None:
        known = getattr(dataset, "classes", None) or _by_label(dataset)
        if isinstance(known, list | tuple) and known and all(isinstance(name, str | int) for name in known):
            return [str(name) for name in known]
        inner = getattr(dataset, "dataset", None)
        dataset = None if inner is dataset else inner
    return None


def _by_label(dataset: object) -> list[object] | None:
    """Sort the names of `class_to_idx` by label; None where there is none, or a label without a name."""
    table = getattr(dataset, "class_to_idx", None) or getattr(getattr(dataset, "reader", None), "class_to_idx", None)
    if not isinstance(table, Mapping):
        return None
    names = {label: name for name, label in table.items()}
    return [names[label] for label in range(len(names))] if set(names) == set(range(len(names))) else None
