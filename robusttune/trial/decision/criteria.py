"""What a trial is decided by: which gains count, which losses are accepted, and what the next stage is like."""

from collections.abc import Mapping
from difflib import get_close_matches
from numbers import Real
from typing import Any, NamedTuple

CLEAN, ATTACK, CORRUPTION = "clean", "attack", "corruption"
KINDS = (CLEAN, ATTACK, CORRUPTION)
SHARES = ("worthwhile", "clean_loss")


class Criteria(NamedTuple):
    """What a trial is decided by.

    Attributes:
        worthwhile: the smallest gain of accuracy that is worth the trouble, a share.
        clean_loss: the largest loss of clean accuracy that is accepted, a share; None for any.
        matters: for what a gain counts: "attack", "corruption", "clean".
        images, epochs: of training in the next stage, for its cost; None for those of the trial.
    """

    worthwhile: float = 0.02
    clean_loss: float | None = None
    matters: tuple[str, ...] = (ATTACK, CORRUPTION)
    images: int | None = None
    epochs: float | None = None


def criteria(given: Any) -> Criteria:
    """The criteria that a plan's `decision` asks for, with the defaults of those that it does not name.

    Raises:
        ValueError: unknown names, or values out of range.

    Example:
        >>> criteria({"worthwhile": 0.05, "matters": "attack"}).matters
        ('attack',)
    """
    if not isinstance(given or {}, Mapping):
        raise ValueError(f"decision is {given!r}, but {{name: value}} is needed, out of {', '.join(Criteria._fields)}")
    asked = dict(given or {})
    for name in asked:
        if name not in Criteria._fields:
            close = get_close_matches(str(name), Criteria._fields, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ValueError(f"decision: there is no {name!r}{hint}; known are {', '.join(Criteria._fields)}")
    if "matters" in asked:
        asked["matters"] = _matters(asked["matters"])
    found = Criteria(**asked)
    for name in ("worthwhile", "clean_loss", "images", "epochs"):
        _check(name, getattr(found, name))
    return found


def _matters(given: Any) -> tuple[str, ...]:
    each = [given] if isinstance(given, str) else given
    if not isinstance(each, list | tuple) or not each or any(kind not in KINDS for kind in each):
        raise ValueError(f"matters is {given!r}, but some of {', '.join(KINDS)} are needed")
    return tuple(each)


def _check(name: str, value: Any) -> None:
    if value is None and name != "worthwhile":
        return
    number = isinstance(value, Real) and not isinstance(value, bool)
    share = name in SHARES
    if number and (0 < value < (1 if share else float("inf")) or (name == "clean_loss" and value == 0)):
        return
    allowed = "a share of images between 0 and 1, such as 0.02 for two points," if share else "a number above 0"
    raise ValueError(f"{name} is {value!r}, but {allowed} is needed")
