"""Check of a trial's plan against its budget, and edits that bring a plan under it."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

from robusttune.trial.decision.significance import FEWEST_SEEDS
from robusttune.trial.plan import HOUR, PlannedEvaluation, TrialPlan

LEAST = 0.1  # of epochs and test images, below which nothing is suggested
HALVINGS = 10  # of the interval in which the largest share lies


class Cost(NamedTuple):
    """Seconds of one arm with one seed: training, evaluation, and a fixed part that grows with neither."""

    training: float
    measuring: float
    fixed: float = 0.0


CostsOf: TypeAlias = Callable[[TrialPlan], Mapping[str, Cost]]
SecondsOf: TypeAlias = Callable[[TrialPlan], float]


def total_seconds(plan: TrialPlan, costs: Mapping[str, Cost]) -> float:
    """Sum the seconds of all arms with all seeds; an arm that does not train is measured once."""
    count = len(plan.seeds)
    return sum(sum(costs[arm]) * (count if phases else 1) for arm, phases in plan.arms.items())


def with_price(seconds: float, plan: TrialPlan) -> str:
    """Format seconds, with their cost in money where the plan has a price.

    Example:
        >>> paid = {"arms": {}, "seeds": [], "evaluation": {}, "budget": {"money": 20, "price an hour": 2}}
        >>> with_price(5400, TrialPlan.from_dict(paid))
        '5,400 s (3.00)'
    """
    return f"{seconds:,.0f} s" + ("" if plan.price is None else f" ({seconds / HOUR * plan.price:.2f})")


def check_budget(plan: TrialPlan, costs_of: CostsOf, path: Path) -> None:
    """Raise a ValueError for a plan over its budget, which lists edits that bring it under.

    Args:
        plan: of the trial.
        costs_of: the cost of each arm of a plan with one seed.
        path: of the plan's file.
    """
    seconds, allowed = total_seconds(plan, costs_of(plan)), plan.seconds_allowed
    if seconds <= allowed:
        return
    ways = list(ways_under(plan, costs_of, allowed))
    advice = (
        f"any one of these brings it under: {'; '.join(ways)}"
        if ways
        else "a tenth of its epochs and test images would still be over: raise the budget, or drop arms and seeds as well"
    )
    raise ValueError(
        f"the plan would take about {with_price(seconds, plan)}, but the budget is {with_price(allowed, plan)}; {advice}. "
        f"Edit {str(path)!r}, then go on with resume=True"
    )


def ways_under(plan: TrialPlan, costs_of: CostsOf, allowed: float) -> Iterator[str]:
    """Yield edits that bring the plan under the allowed seconds, each by itself; two together where no single one does.

    The cost of every edited plan is computed again: steps and epochs are whole, so costs do not shrink in proportion.
    """

    def seconds_of(edited: TrialPlan) -> float:
        return total_seconds(edited, costs_of(edited))

    single = [
        text for way in (_fewer_seeds, _fewer_arms, _shorter, _fewer_images) for text in way(plan, seconds_of, allowed)
    ]
    yield from single or _shorter_with_fewer_images(plan, seconds_of, allowed)


def _fewer_seeds(plan: TrialPlan, seconds_of: SecondsOf, allowed: float) -> Iterator[str]:
    for count in range(len(plan.seeds) - 1, 0, -1):
        seconds = seconds_of(replace(plan, seeds=plan.seeds[:count]))
        if seconds <= allowed:
            few = ", too few to tell differences from chance" if count < FEWEST_SEEDS else ""
            yield f"{count} instead of {len(plan.seeds)} seeds ({with_price(seconds, plan)}{few})"
            return


def _fewer_arms(plan: TrialPlan, seconds_of: SecondsOf, allowed: float) -> Iterator[str]:
    """Drop arms from the last one, which has most phases unless the user gave an order; baselines and two arms stay."""
    arms, dropped = dict(plan.arms), list[str]()
    for arm in [arm for arm in reversed(arms) if arm not in (plan.untrained_arm, plan.plain_arm)]:
        if len(arms) <= 2:
            return
        del arms[arm]
        dropped.append(arm)
        seconds = seconds_of(replace(plan, arms=dict(arms)))
        if seconds <= allowed:
            yield f"dropping the arms {', '.join(dropped)} ({with_price(seconds, plan)})"
            return


def _shorter(plan: TrialPlan, seconds_of: SecondsOf, allowed: float) -> Iterator[str]:
    share = _largest(lambda share: seconds_of(replace(plan, epochs=_epochs(plan, share))) <= allowed)
    if share is not None:
        yield f"{_epochs(plan, share):g} instead of {plan.epochs:g} epochs"


def _fewer_images(plan: TrialPlan, seconds_of: SecondsOf, allowed: float) -> Iterator[str]:
    share = _largest(lambda share: seconds_of(replace(plan, evaluation=_evaluation(plan, share))) <= allowed)
    if share is not None:
        yield f"{_evaluation(plan, share).images} instead of {plan.evaluation.images} test images"


def _shorter_with_fewer_images(plan: TrialPlan, seconds_of: SecondsOf, allowed: float) -> Iterator[str]:
    def edited(share: float) -> TrialPlan:
        return replace(plan, epochs=_epochs(plan, share), evaluation=_evaluation(plan, share))

    share = _largest(lambda share: seconds_of(edited(share)) <= allowed)
    if share is not None:
        before = f"{plan.epochs:g} epochs and {plan.evaluation.images} test images"
        yield f"{_epochs(plan, share):g} epochs and {_evaluation(plan, share).images} test images instead of {before}"


def _epochs(plan: TrialPlan, share: float) -> float:
    return _rounded_down(share * plan.epochs)


def _evaluation(plan: TrialPlan, share: float) -> PlannedEvaluation:
    return replace(plan.evaluation, images=max(1, int(share * plan.evaluation.images)))


def _largest(fits: Callable[[float], bool]) -> float | None:
    """Search for the largest share that fits, by halving, down to a tenth; None where a tenth does not fit."""
    low, high = LEAST, 1.0
    if not fits(low):
        return None
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _rounded_down(value: float) -> float:
    """Round down to two significant digits.

    Example:
        >>> _rounded_down(0.4567), _rounded_down(-1.0)
        (0.45, 0.0)
    """
    if value <= 0:
        return 0.0
    digits = 1 - math.floor(math.log10(value))
    return float(math.floor(value * 10**digits) / 10**digits)
