"""The names of classes that a data set knows."""

from robusttune.types import Loader


def class_names(loader: Loader) -> list[str] | None:
    """List the names in `classes` of a loader's data set, or of the one that it wraps; None if there are none.

    Example:
        >>> from types import SimpleNamespace
        >>> class_names(SimpleNamespace(dataset=SimpleNamespace(dataset=SimpleNamespace(classes=["cat", "dog"]))))
        ['cat', 'dog']
    """
    dataset = getattr(loader, "dataset", None)
    while dataset is not None:
        known = getattr(dataset, "classes", None)
        if isinstance(known, list | tuple) and known and all(isinstance(name, str | int) for name in known):
            return [str(name) for name in known]
        inner = getattr(dataset, "dataset", None)
        dataset = None if inner is dataset else inner
    return None
