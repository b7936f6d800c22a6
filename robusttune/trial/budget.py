"""Check of a trial's plan against its budget, and edits that bring a plan under it."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

from robusttune.trial.decision.significance import FEWEST_SEEDS
from robusttune.trial.plan import HOUR, PlannedEvaluation, TrialPlan
from robusttune.trial.screening import Screening, looks_for, screening_of

LEAST = 0.1  # share of epochs and test images, below which nothing is suggested
MOST_SEEDS = 20
HALVINGS = 10  # of the interval in which the largest share lies


class Cost(NamedTuple):
    """Seconds of one arm with one seed: training, evaluation, and a fixed part that grows with neither.

    `more` is what is measured with the seeds of the first look alone.
    """

    training: float
    measuring: float
    fixed: float = 0.0
    more: float = 0.0

    def seconds(self, seeds: int, first: int) -> float:
        """Return the seconds of some seeds, of which the first ones are measured more closely."""
        return seeds * (self.training + self.measuring + self.fixed) + min(seeds, first) * self.more


CostsOf: TypeAlias = Callable[[TrialPlan], Mapping[str, Cost]]
SecondsOf: TypeAlias = Callable[[TrialPlan], float]


def total_seconds(plan: TrialPlan, costs_of: CostsOf) -> float:
    """Sum the seconds of all stages, at most: with looks, a trial may end before its last seed.

    Args:
        plan: the plan of the trial.
        costs_of: the cost of each arm of a plan of one stage, with one seed.
    """
    first = screening_of(plan)
    return (0.0 if first is None else stage_seconds(first, costs_of(first))) + stage_seconds(plan, costs_of(plan))


def stage_seconds(plan: TrialPlan, costs: Mapping[str, Cost]) -> float:
    """Sum the seconds of the arms with all seeds; an arm that does not train is measured once.

    Where a screening chooses the arms, the plain one and the dearest of the others are counted.
    """
    count, first = len(plan.seeds), len(plan.first_seeds)
    untrained = sum(costs[arm].seconds(1, 1) for arm, phases in plan.arms.items() if not phases)
    trained = {arm: costs[arm].seconds(count, first) for arm, phases in plan.arms.items() if phases}
    if plan.screening is not None:
        keep, plain = Screening.of(plan.screening).keep, plan.plain_arm
        dearest = sorted(trained, key=lambda arm: (arm != plain, -trained[arm]))[:keep]
        trained = {arm: trained[arm] for arm in dearest}
    return untrained + sum(trained.values())


def fitting_seeds(plan: TrialPlan, costs_of: CostsOf) -> TrialPlan:
    """Return the plan with as many seeds of the second stage as its budget holds, three to twenty."""
    for count in range(MOST_SEEDS, FEWEST_SEEDS, -1):
        longer = with_seeds(plan, count)
        if total_seconds(longer, costs_of) <= plan.seconds_allowed:
            return longer
    return with_seeds(plan, FEWEST_SEEDS)


def with_seeds(plan: TrialPlan, count: int) -> TrialPlan:
    """Return the plan with the seeds from 0 on, or with the first of its own where it has so many."""
    used = [] if plan.screening is None else Screening.of(plan.screening).seeds
    free = [seed for seed in range(count + len(used)) if seed not in used][:count]
    seeds = plan.seeds[:count] if len(plan.seeds) >= count else free
    return replace(plan, seeds=seeds, looks=None if plan.looks is None else looks_for(count))


def with_price(seconds: float, plan: TrialPlan) -> str:
    """Format seconds, with their cost in money where the plan has a price.

    Example:
        >>> paid = {"arms": {}, "seeds": [], "evaluation": {}, "budget": {"money": 20, "price an hour": 2}}
        >>> with_price(5400, TrialPlan.from_dict(paid))
        '5,400 s (3.00)'
    """
    return f"{seconds:,.0f} s" + ("" if plan.price is None else f" ({plan.money(seconds / HOUR, plan.price)})")


def check_budget(plan: TrialPlan, costs_of: CostsOf, path: Path) -> None:
    """Raise a ValueError for a plan over its budget, which lists edits that bring it under.

    Args:
        plan: the plan of the trial.
        costs_of: the cost of each arm of a plan with one seed.
        path: the path of the plan's file.
    """
    seconds, allowed = total_seconds(plan, costs_of), plan.seconds_allowed
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
        return total_seconds(edited, costs_of)

    single = [
        text for way in (_fewer_seeds, _fewer_arms, _shorter, _fewer_images) for text in way(plan, seconds_of, allowed)
    ]
    yield from single or _shorter_with_fewer_images(plan, seconds_of, allowed)


def _fewer_seeds(plan: TrialPlan, seconds_of: SecondsOf, allowed: float) -> Iterator[str]:
    for count in range(len(plan.seeds) - 1, 0, -1):
        seconds = seconds_of(with_seeds(plan, count))
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
    """Search for the largest share that fits, by halving, down to a tenth; None if a tenth does not fit."""
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
