"""Whether a trial's plan fits its budget, and what to drop where it does not."""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from robusttune.trial.results import unpretexted, untouched

HOUR = 3600
ENOUGH_SEEDS = 3
LEAST = 0.1  # of epochs and test images, below which nothing is suggested
HALVINGS = 10  # of what is not known of the largest share


class Cost(NamedTuple):
    """Seconds of an arm with one seed: of training, of measuring, and of what does not depend on how long either is."""

    training: float
    measuring: float
    around: float = 0.0


CostsOf: TypeAlias = Callable[[Mapping[str, Any]], Mapping[str, Cost]]


def seconds_in_all(plan: Mapping[str, Any], costs: Mapping[str, Cost]) -> float:
    """What all arms of the plan take with all its seeds; what does not train is measured once."""
    count = len(plan["seeds"])
    return sum(sum(costs[arm]) * (count if phases else 1) for arm, phases in plan["arms"].items())


def seconds_allowed(plan: Mapping[str, Any]) -> float:
    """The budget in seconds; infinite where there is none."""
    budget = plan.get("budget")
    if budget is None:
        return math.inf
    return float(budget["seconds"] if "seconds" in budget else HOUR * budget["money"] / budget["price an hour"])


def told(seconds: float, plan: Mapping[str, Any]) -> str:
    """Seconds, and the money that they cost where the plan has a price.

    Example:
        >>> told(5400, {"budget": {"money": 20, "price an hour": 2}})
        '5,400 s (3.00)'
    """
    price = (plan.get("budget") or {}).get("price an hour")
    return f"{seconds:,.0f} s" + ("" if price is None else f" ({seconds / HOUR * price:.2f})")


def check_budget(plan: Mapping[str, Any], costs_of: CostsOf, path: Path) -> None:
    """Raise a ValueError for a plan over its budget, which says what to drop.

    Args:
        plan: of the trial.
        costs_of: what each arm of a plan costs with one seed.
        path: of the plan's file.
    """
    whole, allowed = seconds_in_all(plan, costs_of(plan)), seconds_allowed(plan)
    if whole <= allowed:
        return
    ways = list(ways_under(plan, costs_of, allowed))
    advice = (
        f"any one of these brings it under: {'; '.join(ways)}"
        if ways
        else "a tenth of its epochs and test images would still be over: raise the budget, or drop arms and seeds as well"
    )
    raise ValueError(
        f"the plan would take about {told(whole, plan)}, but the budget is {told(allowed, plan)}; {advice}. Edit "
        f"{str(path)!r}, then go on with resume=True"
    )


def ways_under(plan: Mapping[str, Any], costs_of: CostsOf, allowed: float) -> Iterator[str]:
    """What brings the plan under so many seconds, each way on its own; two together where none does alone.

    Each way is looked at as the plan that it makes: what rounds to whole steps and epochs does not shrink in proportion.
    """

    def seconds(**edit: Any) -> float:
        edited = {**plan, **edit}
        return seconds_in_all(edited, costs_of(edited))

    ways = (_fewer_seeds, _fewer_arms, _shorter, _fewer_images)
    found = [each for way in ways for each in way(plan, seconds, allowed)]
    yield from found or _both(plan, seconds, allowed)


def _fewer_seeds(plan: Mapping[str, Any], seconds: Callable[..., float], allowed: float) -> Iterator[str]:
    seeds = plan["seeds"]
    for count in range(len(seeds) - 1, 0, -1):
        left = seconds(seeds=seeds[:count])
        if left <= allowed:
            few = ", too few to tell differences from chance" if count < ENOUGH_SEEDS else ""
            yield f"{count} instead of {len(seeds)} seeds ({told(left, plan)}{few})"
            return


def _fewer_arms(plan: Mapping[str, Any], seconds: Callable[..., float], allowed: float) -> Iterator[str]:
    """From the last arm, which is the most elaborate one unless the user gave an order; the baselines and two arms stay."""
    arms, dropped = dict(plan["arms"]), list[str]()
    stay = {untouched(plan), unpretexted(plan)}
    for arm in [arm for arm in reversed(arms) if arm not in stay]:
        if len(arms) <= 2:
            return
        del arms[arm]
        dropped.append(arm)
        left = seconds(arms=arms)
        if left <= allowed:
            yield f"dropping the arms {', '.join(dropped)} ({told(left, plan)})"
            return


def _shorter(plan: Mapping[str, Any], seconds: Callable[..., float], allowed: float) -> Iterator[str]:
    share = _largest(lambda share: seconds(epochs=_epochs(plan, share)) <= allowed)
    if share is not None:
        yield f"{_epochs(plan, share):g} instead of {plan['epochs']:g} epochs"


def _fewer_images(plan: Mapping[str, Any], seconds: Callable[..., float], allowed: float) -> Iterator[str]:
    share = _largest(lambda share: seconds(evaluation=_evaluation(plan, share)) <= allowed)
    if share is not None:
        yield f"{_evaluation(plan, share)['images']} instead of {plan['evaluation']['images']} test images"


def _both(plan: Mapping[str, Any], seconds: Callable[..., float], allowed: float) -> Iterator[str]:
    share = _largest(lambda share: seconds(epochs=_epochs(plan, share), evaluation=_evaluation(plan, share)) <= allowed)
    if share is not None:
        epochs, images = _epochs(plan, share), _evaluation(plan, share)["images"]
        was = f"{plan['epochs']:g} epochs and {plan['evaluation']['images']} test images"
        yield f"{epochs:g} epochs and {images} test images instead of {was}"


def _epochs(plan: Mapping[str, Any], share: float) -> float:
    return _rounded_down(share * plan["epochs"])


def _evaluation(plan: Mapping[str, Any], share: float) -> dict[str, Any]:
    return {**plan["evaluation"], "images": max(1, int(share * plan["evaluation"]["images"]))}


def _largest(fits: Callable[[float], bool]) -> float | None:
    """Nearly the largest share that fits, down to a tenth; None where that does not."""
    low, high = LEAST, 1.0
    if not fits(low):
        return None
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _rounded_down(value: float) -> float:
    """To two digits.

    Example:
        >>> _rounded_down(0.4567), _rounded_down(-1.0)
        (0.45, 0.0)
    """
    if value <= 0:
        return 0.0
    digits = 1 - math.floor(math.log10(value))
    return float(math.floor(value * 10**digits) / 10**digits)
