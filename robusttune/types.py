"""Types of arguments in several packages, and checks of arguments by their kind: a path, True or False, an object with certain methods.

Nothing is imported from torch at run time.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Union

if TYPE_CHECKING:
    import torch

PathLike: TypeAlias = str | os.PathLike[str]
# With names in quotes, `X | Y` would fail at run time.
DeviceLike: TypeAlias = Union[str, "torch.device"]
# Mean or std of the model's input: one number for all channels, or one for each.
Channels: TypeAlias = Union[float, Sequence[float], "torch.Tensor"]
# A user's loader yields batches of any of these forms: (images, labels, …), a dict of both, or images alone.
Loader: TypeAlias = Iterable[Any]
# A choice of the user's, or one by measurement.
AutoBool: TypeAlias = bool | Literal["auto"]
# The values that JSON can hold: what run.json, plan.yaml and records are made of.
Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None

LONGEST = 80  # characters of a value in an error
PATHS = ("out", "init_from", "run", "path")
FLAGS = ("resume", "progress", "drop_foreign", "checkpointing", "trust", "plan_only", "allow_weak")
FLAGS_OR_NONE = ("normalized", "sharded")
AUTO = ("compile", "channels_last", "tune", "eps_ramp")
ARRAYS = ("loader", "val_loader", "unlabeled_loader", "mean", "std")  # that may be tensors
FUNCTIONS = {
    "on_epoch": "of a dict is needed, such as on_epoch=print",
    "criterion": "(logits, labels) -> losses is needed",
}
TEXTS = {"classifier": "the name of a layer, such as 'fc', is needed"}
SCHEDULER = ("step", "state_dict", "load_state_dict")


def shown(value: object) -> str:
    """Write a value for an error: shortened, and by its type where it cannot be written.

    Example:
        >>> shown("a" * 100)
        "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…"
    """
    try:
        text = " ".join(repr(value).split())
    except Exception:  # whatever a user's __repr__ raises
        text = f"a {type(value).__name__}"
    return text if len(text) < LONGEST else text[: LONGEST - 1] + "…"


def plain_number(value: object) -> object:
    """Return a number of another library, such as numpy, as one of Python; anything else as it is.

    Example:
        >>> import numpy as np
        >>> plain_number(np.int64(3)), plain_number(True), plain_number("3")
        (3, True, '3')
    """
    if isinstance(value, bool | int | float | complex) and type(value).__module__ == "builtins":
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def check_kinds(arguments: Mapping[str, object]) -> None:
    """Check those arguments whose kind is known by their name, as they are the same in all functions.

    Raises:
        ValueError: a value that is no path, a flag that is neither True nor False, or an object that lacks what it needs.
    """
    for name, value in arguments.items():
        if name in PATHS and value is not None:
            check_path(name, value)
        elif name in FLAGS or (name in FLAGS_OR_NONE and value is not None):
            check_flag(name, value, none=name in FLAGS_OR_NONE)
        elif name in AUTO and not says(value, "auto"):
            check_flag(name, value, none=False, auto=True)
        elif name in FUNCTIONS and value is not None and (not callable(value) or _is_model(name, value)):
            raise ValueError(f"{name} is {shown(value)}, but a function {FUNCTIONS[name]}")
        elif name in TEXTS and value is not None and not isinstance(value, str):
            raise ValueError(f"{name} is {shown(value)}, but {TEXTS[name]}; or None to find it")
        elif name in OBJECTS and (value is not None or name == "threat"):
            OBJECTS[name](value)


def says(value: object, word: str) -> bool:
    """Return True if a value is this text; objects are not compared, as their `==` may do anything.

    Example:
        >>> says("auto", "auto"), says(None, "auto")
        (True, False)
    """
    return isinstance(value, str) and value == word


def check_path(name: str, value: object) -> Path:
    """Return a path as a Path.

    Raises:
        ValueError: it is no text and no path, or no file can have that name.

    Example:
        >>> check_path("out", "runs/a").name
        'a'
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str):
        raise ValueError(f"{name} is {shown(value)}, but a path is needed: text, or a pathlib.Path")
    try:
        Path(text).exists()
        os.stat(text)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"{name} is {shown(text)}, which cannot be looked at ({why}): name another path") from error
    return Path(text)


def check_flag(name: str, value: object, *, none: bool = False, auto: bool = False) -> None:
    """Raise a ValueError unless a value is True or False; `none` and `auto` for flags that may be None or "auto", too."""
    if isinstance(value, Integral) and value in (0, 1):
        return
    if type(value).__name__ not in ("bool", "bool_"):  # numpy has one of its own
        also = ", or None for the default" if none else ""
        if auto:
            raise ValueError(f"{name} is {shown(value)}, but it must be True, False or 'auto'")
        raise ValueError(f"{name} is {shown(value)}, but True or False is needed{also}")


def refuse_arrays(arguments: Mapping[str, object]) -> None:
    """Raise a ValueError for a tensor or an array of several numbers where no argument is one."""
    for name, value in arguments.items():
        if name not in ARRAYS and hasattr(value, "__array__") and bool(getattr(value, "ndim", 0)):
            raise ValueError(
                f"{name} is {shown(value)}, but it cannot be a tensor or an array: see help(robusttune.harden)"
            )


def _is_model(name: str, value: object) -> bool:
    """Return True for a module or a class where a function of facts is needed."""
    return name == "on_epoch" and (hasattr(value, "forward") or isinstance(value, type))


def check_scheduler(value: object) -> None:
    """Raise a ValueError unless a value is a name, a scheduler, or a function that makes one."""
    if not isinstance(value, str) and not callable(value) and not has(value, SCHEDULER):
        raise ValueError(
            f"scheduler is {shown(value)}, but a name of timm's is needed, such as 'cosine', a torch scheduler, or a function "
            "of the optimizer"
        )


def check_optimizer(value: object) -> None:
    """Raise a ValueError unless a value is a name, an optimiser, or a function that makes one."""
    if not isinstance(value, str) and not callable(value) and not has(value, ("step", "zero_grad", "param_groups")):
        raise ValueError(
            f"optimizer is {shown(value)}, but a name of timm's is needed, such as 'sgd', a torch optimizer, or a function of "
            "the parameters"
        )


def check_threat(value: object) -> None:
    """Raise a ValueError unless a value has what a ThreatModel has."""
    if not has(value, ("norm", "eps", "project", "ascent")):
        raise ValueError(
            f"threat is {shown(value)}, but a ThreatModel is needed, such as robusttune.ThreatModel('linf', eps=8 / 255)"
        )


def has(value: object, methods: tuple[str, ...]) -> bool:
    """Return True for an object, not a class, that has all of these attributes."""
    return not isinstance(value, type) and all(hasattr(value, each) for each in methods)


OBJECTS: dict[str, Callable[[object], None]] = {
    "threat": check_threat,
    "scheduler": check_scheduler,
    "optimizer": check_optimizer,
}


def from_json(text: str | bytes) -> Any:
    """Return the values of a text in JSON that came from a file.

    Raises:
        ValueError: it is no JSON, or is nested so deeply that it cannot be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("the text is nested too deeply to be read as JSON") from error


def to_json(facts: object) -> str:
    """Return facts as a line of JSON; NaN and infinite numbers, which JSON has none of, become null."""
    return json.dumps(finite(facts), allow_nan=False)


def finite(value: object) -> object:
    """Return a value of JSON in which NaN and infinite numbers are None, as parsers other than Python's refuse them."""
    if isinstance(value, Mapping):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
