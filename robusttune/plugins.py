"""Names of plug-ins, found by listing the folder they live in."""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any


def names(kind: str) -> list[str]:
    """The names of every plug-in of one kind, sorted.

    Args:
        kind: a plural folder of this package: "norms", "attacks", "objectives", "tasks", "corruptions",
            "augmentations", "evaluations", "measuring.sections" or "trial.arms". Files whose names begin with _ are what a kind shares.

    Example:
        >>> names("norms")
        ['l2', 'linf']
    """
    # The package is not imported, as `--help` lists names without torch; an imported one may have more folders.
    folder = Path(__file__).parent.joinpath(*kind.split("."))
    folders = getattr(sys.modules.get(f"robusttune.{kind}"), "__path__", [str(folder)])
    return sorted(module.name for module in pkgutil.iter_modules(folders) if not module.name.startswith("_"))


def find(kind: str, name: Any) -> Any:
    """The one thing that the file `name` of folder `kind` exports; anything but a string is returned as it is.

    Raises:
        ValueError: no file has this name; the message lists those that exist.

    Example:
        >>> find("tasks", "rotation")().classes
        4
    """
    if not isinstance(name, str):
        return name
    known = names(kind)
    if name not in known:
        close = get_close_matches(name, known, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(
            f"unknown {_singular(kind)} {name!r}{hint}: known are {', '.join(known)}; an object is taken too"
        )
    return getattr(importlib.import_module(f"robusttune.{kind}.{name}"), name)


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """A hint at the known name that is closest to a misspelt one, for an error; empty where none is close.

    Example:
        >>> did_you_mean("rotations", ["jigsaw", "rotation"]), did_you_mean("xyzzy", ["jigsaw"])
        (" (did you mean 'rotation'?)", '')
    """
    close = get_close_matches(str(name), list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def made(kind: str, name: Any) -> Any:
    """Like `find`, for kinds that export a class: a name stands for the class called without arguments.

    Example:
        >>> made("tasks", "jigsaw").name
        'jigsaw'
    """
    found = find(kind, name)
    return found() if isinstance(found, type) else found


def configured(kind: str, name: Any, **settings: Any) -> Any:
    """Like `find`, with those settings that are not None.

    Example:
        >>> configured("attacks", "pgd", steps=3, step_size=None).keywords
        {'steps': 3}
    """
    given = {key: value for key, value in settings.items() if value is not None}
    found = find(kind, name)
    taken = inspect.signature(found).parameters if given else {}
    strange = [key for key in given if key not in taken]
    if strange and not any(one.kind is one.VAR_KEYWORD for one in taken.values()):
        raise ValueError(f"the {_singular(kind)} {name!r} takes no {' and no '.join(strange)}: leave it out")
    return partial(found, **given) if given else found


def check_installed(kind: str, name: Any) -> None:
    """Let a plug-in import what it needs beyond the core's packages, by its `installed`, where it has such a function.

    Raises:
        ImportError: it is not here, which else would come out when the plug-in is called, after others have worked.
    """
    found = find(kind, name)
    while isinstance(found, partial):
        if "attack" in found.keywords:
            check_installed("attacks", found.keywords["attack"])
        found = found.func
    getattr(found, "installed", lambda: None)()


def _singular(kind: str) -> str:
    """One of a kind: the last part of its path, without the s."""
    return kind.rpartition(".")[2].removesuffix("s")


def one_of(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """The value, where it is allowed.

    Raises:
        ValueError: it is not; the message lists what is.
    """
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, but it must be one of {', '.join(map(repr, allowed))}")
    return str(value)
