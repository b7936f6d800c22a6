"""Whether a trial's plan fits its budget, and what to drop where it does not."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

HOUR = 3600
ENOUGH_SEEDS = 3


class Cost(NamedTuple):
    """Seconds of an arm with one seed: of training, of measuring, and of what does not depend on how long either is."""

    training: float
    measuring: float
    around: float = 0.0


def seconds_in_all(plan: Mapping[str, Any], costs: Mapping[str, Cost], seeds: int | None = None) -> float:
    """What all arms of the plan take with all its seeds, or with so many; what does not train is measured once."""
    count = len(plan["seeds"]) if seeds is None else seeds
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


def check_budget(plan: Mapping[str, Any], costs: Mapping[str, Cost], path: Path) -> None:
    """Raise a ValueError for a plan over its budget, which says what to drop.

    Args:
        plan, costs: of the trial, and of each arm with one seed.
        path: of the plan's file.
    """
    whole, allowed = seconds_in_all(plan, costs), seconds_allowed(plan)
    if whole <= allowed:
        return
    ways = list(ways_under(plan, costs, allowed))
    advice = (
        f"any one of these brings it under: {'; '.join(ways)}" if ways else "no part of it would fit: raise the budget"
    )
    raise ValueError(
        f"the plan would take about {told(whole, plan)}, but the budget is {told(allowed, plan)}; {advice}. Edit "
        f"{str(path)!r}, then go on with resume=True"
    )


def ways_under(plan: Mapping[str, Any], costs: Mapping[str, Cost], allowed: float) -> Iterator[str]:
    """What brings the plan under so many seconds, each way on its own; two together where none does alone."""
    found = [*_fewer_seeds(plan, costs, allowed), *_fewer_arms(plan, costs, allowed)]
    found += [*_shorter(plan, costs, allowed), *_fewer_images(plan, costs, allowed)]
    yield from found
    if not found:
        share = allowed / seconds_in_all(plan, costs)
        images, epochs = int(share * plan["evaluation"]["images"]), _rounded_down(share * plan["epochs"])
        if images >= 1 and epochs > 0:
            yield f"{epochs:g} epochs instead of {plan['epochs']:g} together with {images} test images"


def _fewer_seeds(plan: Mapping[str, Any], costs: Mapping[str, Cost], allowed: float) -> Iterator[str]:
    count = len(plan["seeds"])
    fits = [seeds for seeds in range(1, count) if seconds_in_all(plan, costs, seeds) <= allowed]
    if fits:
        few = ", too few to tell differences from chance" if fits[-1] < ENOUGH_SEEDS else ""
        yield f"{fits[-1]} instead of {count} seeds ({told(seconds_in_all(plan, costs, fits[-1]), plan)}{few})"


def _fewer_arms(plan: Mapping[str, Any], costs: Mapping[str, Cost], allowed: float) -> Iterator[str]:
    """From the last arm, which is the most elaborate one unless the user gave an order; two arms are the least."""
    arms, dropped = dict(plan["arms"]), list[str]()
    while len(arms) > 2 and seconds_in_all({**plan, "arms": arms}, costs) > allowed:
        dropped.append(arms.popitem()[0])
    left = seconds_in_all({**plan, "arms": arms}, costs)
    if left <= allowed:
        yield f"dropping the arms {', '.join(dropped)} ({told(left, plan)})"


def _shorter(plan: Mapping[str, Any], costs: Mapping[str, Cost], allowed: float) -> Iterator[str]:
    training = seconds_in_all(plan, {arm: Cost(cost.training, 0) for arm, cost in costs.items()})
    left = allowed - (seconds_in_all(plan, costs) - training)
    epochs = _rounded_down(plan["epochs"] * left / training) if training > 0 else 0.0
    if epochs > 0:
        yield f"{epochs:g} instead of {plan['epochs']:g} epochs"


def _fewer_images(plan: Mapping[str, Any], costs: Mapping[str, Cost], allowed: float) -> Iterator[str]:
    measuring = seconds_in_all(plan, {arm: Cost(0, cost.measuring) for arm, cost in costs.items()})
    left = allowed - (seconds_in_all(plan, costs) - measuring)
    images = int(plan["evaluation"]["images"] * left / measuring) if measuring > 0 else 0
    if images >= 1:
        yield f"{images} instead of {plan['evaluation']['images']} test images"


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
