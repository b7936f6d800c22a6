"""The names of classes that a data set knows, and their number beside that of a model's outputs."""

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
