"""Checks of the arguments of `poc`, before a plan is made of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, NamedTuple

from torch import nn

from robusttune.run.settings import COUNT, POSITIVE, AllowedRange, check_number, seconds_of
from robusttune.threat import ThreatModel
from robusttune.types import plain_number, shown

if TYPE_CHECKING:
    from robusttune.trial.plan_defaults import PlanRequest


SEED_COUNT = AllowedRange("a whole number from 1 to 1,000", lambda value: 1 <= value <= 1000, Integral)


class _Kind(NamedTuple):
    words: str
    holds: Callable[[object], bool]


def _names(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, Sequence) and all(isinstance(each, str) for each in value))


def _settings(value: object) -> bool:
    return value is None or (isinstance(value, Mapping) and all(isinstance(each, str) for each in value))


def _item(value: object) -> bool:
    return isinstance(value, str | Mapping)


def _arm(value: object) -> bool:
    return isinstance(value, str | Mapping) or callable(value)


def _listed(value: object, holds: Callable[[object], bool]) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(map(holds, value))


KINDS = {
    "threats": _Kind(
        "radii by norm are needed, such as {'linf': 8/255}, or names of norms",
        lambda value: isinstance(value, Mapping | ThreatModel) or _names(value),
    ),
    "corruptions": _Kind("names are needed, such as ['noise', 'fog']", _names),
    "needs": _Kind("names are needed, such as ['attack', 'clean']", _names),
    "arms": _Kind(
        "names of arms are needed, {name: phases}, or a list of these",
        lambda value: value is None or _arm(value) or _listed(value, _arm),
    ),
    "evaluation": _Kind(
        "a list of evaluations is needed, such as ['clean', {'sweep': {'steps': 20}}]",
        lambda value: value is None or _listed(value, _item),
    ),
    "settings": _Kind("arguments of harden by name are needed, such as {'lr': 0.01}", _settings),
    "decision": _Kind("criteria by name are needed, such as {'worthwhile': 0.05}", _settings),
    "cloud": _Kind("{'price an hour': …, 'times as fast': …} is needed", _settings),
    "seeds": _Kind(
        "their number is needed, such as 3, or a list of them, such as [0, 1, 2]",
        lambda value: value is None or _listed(value, lambda seed: type(seed) is int),
    ),
    "currency": _Kind("a name is needed, such as 'EUR'", lambda value: value is None or isinstance(value, str)),
}


def check_request(request: "PlanRequest") -> None:
    """Raise a ValueError for an argument of the wrong kind; what is in the plan is checked with the plan."""
    for name, kind in KINDS.items():
        value = getattr(request, name)
        if not kind.holds(value):
            raise ValueError(f"{name} is {shown(value)}, but {kind.words}")
    check_number("images", request.images, COUNT)
    check_number("epochs", request.epochs, POSITIVE)
    if request.price is None:
        seconds_of(request.budget, "budget")
        return
    check_number("price", request.price, POSITIVE)
    if request.budget is not None:
        check_number("budget", request.budget, POSITIVE)


def chosen_seeds(seeds: int | Sequence[int]) -> list[int]:
    """Return the seeds themselves; a number n stands for 0 to n-1.

    Raises:
        ValueError: neither a number nor a list.

    Example:
        >>> chosen_seeds(3), chosen_seeds((4, 7))
        ([0, 1, 2], [4, 7])
    """
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        check_number("seeds", seeds, SEED_COUNT)
        return list(range(seeds))
    no_list = isinstance(seeds, str | bytes | Mapping | nn.Module) or not getattr(seeds, "ndim", True)
    if isinstance(seeds, Iterable) and not no_list:
        return [plain_number(seed) for seed in seeds]  # type: ignore[misc]
    raise ValueError(f"seeds is {seeds!r}, but their number is needed, such as 3, or a list of them, such as [0, 1, 2]")
