"""Check of the model names in run folders: without the user's consent, only models of timm and torchvision are created.

A run's folder is data: whoever may write it must not be able to have code called on the machine that reads it.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import timm

from robusttune.types import shown

LIBRARIES = ("timm", "torchvision")
# Words in the names of arguments with which timm and torchvision read other files, or fetch them.
READING = ("pretrain", "weights", "checkpoint", "path", "file", "url", "cfg", "cache", "hub")
_trusted: ContextVar[Collection[str] | None] = ContextVar("trusted", default=())  # names of functions; None for all


@contextmanager
def trusting(*functions: str, all_of_them: bool = False) -> Iterator[None]:
    """Allow files to name these functions, which the user has named, as models inside this context; or any function."""
    token = _trusted.set(None if all_of_them else functions)
    try:
        yield
    finally:
        _trusted.reset(token)


def check_named_by_file(name: str, arguments: Mapping[str, object] | None, file: object) -> None:
    """Raise a ValueError for a model that a file names, and that is not one of timm or torchvision by its plain name.

    Args:
        name: the name of the model, as in the file.
        arguments: the arguments of the function that makes it.
        file: the file that names it, or its folder.
    """
    if not isinstance(name, str):
        raise ValueError(f"{str(file)!r} names {shown(name)} as its model, which is no text: the file may be damaged")
    trusted = _trusted.get()
    if trusted is None:
        return
    library, _, model = name.partition(":")
    if library not in LIBRARIES and name not in trusted:
        raise ValueError(
            f"{str(file)!r} names {name!r} as its model, which is code that reading a file must not call: if you trust the folder, "
            f"pass --trust, or --model {name}; in Python, make the model yourself and pass it, or let `robusttune.load` trust it"
        )
    if library == "timm" and not timm.is_model(model.split(".")[0]) and name not in trusted:
        raise ValueError(
            f"{str(file)!r} names {name!r} as its model, which would be fetched from elsewhere: if you trust it, pass --trust, or "
            f"--model {name}; in Python, let `robusttune.load` trust it"
        )
    reading = sorted(key for key in arguments or {} if any(word in str(key) for word in READING))
    if reading:
        raise ValueError(
            f"{str(file)!r} has the arguments {', '.join(reading)} for its model, with which other files may be read: if you "
            "trust it, pass --trust; in Python, let `robusttune.load` trust it"
        )
