"""Criteria of a decision: gains that count, losses that are accepted, and the size of the next stage."""

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from robusttune import plugins
from robusttune.corruptions import FAMILIES
from robusttune.plugins import did_you_mean
from robusttune.run.settings import POSITIVE, SHARE, in_range

MetricKind: TypeAlias = Literal["clean", "attack", "corruption"]
CLEAN: Final = "clean"
ATTACK: Final = "attack"
CORRUPTION: Final = "corruption"
ATTACKS = ("sweep", "strong", "autoattack")  # evaluations
KINDS: tuple[MetricKind, ...] = (CLEAN, ATTACK, CORRUPTION)


def check_needs(needs: object) -> None:
    """Raise a ValueError for needs that are not names of what a trial measures."""
    known = [CLEAN, ATTACK, *plugins.names("norms"), *FAMILIES]
    if needs is None:
        return
    wrong = [need for need in needs if need not in known] if isinstance(needs, list | tuple) else [needs]
    if wrong or not needs:
        hint = did_you_mean(str(wrong[0]), known) if wrong else ""
        raise ValueError(f"needs are {needs!r}{hint}, but some of {', '.join(known)} are needed")


class Criteria(NamedTuple):
    """Criteria of a decision.

    Attributes:
        worthwhile: the smallest gain of accuracy that is worth the effort, a share.
        clean_loss: the largest loss of clean accuracy that is accepted, a share; None for any.
        matters: kinds of metrics on which a gain counts: "attack", "corruption", "clean".
        images, epochs: numbers of training images and epochs in the next stage, for its cost; None for those of the trial.
    """

    worthwhile: float = 0.02
    clean_loss: float | None = None
    matters: tuple[MetricKind, ...] = (ATTACK, CORRUPTION)
    images: int | None = None
    epochs: float | None = None


def criteria(settings: object) -> Criteria:
    """Read criteria from a plan's `decision`; those that are not named have their defaults.

    Raises:
        ValueError: unknown names, or values out of range.

    Example:
        >>> criteria({"worthwhile": 0.05, "matters": "attack"}).matters
        ('attack',)
    """
    settings = settings or {}
    if not isinstance(settings, Mapping):
        raise ValueError(
            f"decision is {settings!r}, but {{name: value}} is needed, out of {', '.join(Criteria._fields)}"
        )
    for name in settings:
        if name not in Criteria._fields:
            hint = did_you_mean(name, Criteria._fields)
            raise ValueError(f"decision: there is no {name!r}{hint}; known are {', '.join(Criteria._fields)}")
    values: dict[str, Any] = dict(settings)
    if "matters" in values:
        values["matters"] = _matters(values["matters"])
    result = Criteria(**values)
    _check_shares(result)
    for name, value in (("images", result.images), ("epochs", result.epochs)):
        if value is not None and not in_range(value, POSITIVE):
            raise ValueError(f"{name} is {value!r}, but a number above 0 is needed")
    return result


def _matters(kinds: object) -> tuple[str, ...]:
    chosen = [kinds] if isinstance(kinds, str) else kinds
    if not isinstance(chosen, list | tuple) or not chosen or any(kind not in KINDS for kind in chosen):
        raise ValueError(f"matters is {kinds!r}, but some of {', '.join(KINDS)} are needed")
    return tuple(chosen)


def _check_shares(asked: Criteria) -> None:
    """Raise a ValueError for shares that are not between 0 and 1; a clean_loss may be 0, or None for any."""
    for name, value, zero in (("worthwhile", asked.worthwhile, False), ("clean_loss", asked.clean_loss, True)):
        fits = in_range(value, SHARE) and value != 1 and (zero or value != 0)
        if not fits and not (zero and value is None):
            raise ValueError(
                f"{name} is {value!r}, but a share of images between 0 and 1, such as 0.02 for two points, is needed"
            )
