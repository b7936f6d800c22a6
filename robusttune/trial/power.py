"""Statistical power of a trial, estimated by a pilot before money is spent: the differences it finds, and how often."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from robusttune.trial.arms._phase import Arms, meets_adversary
from robusttune.trial.budget import MOST_SEEDS, with_price, with_seeds
from robusttune.trial.decision.looks import nominal_levels
from robusttune.trial.decision.metrics import accuracies_of, needed
from robusttune.trial.decision.significance import FEWEST_SEEDS, LEVEL, chi2, images_part, pair_scatter, student
from robusttune.trial.plan import Power, TrialPlan
from robusttune.trial.results import Trial
from robusttune.trial.screening import Screening

PILOT_ARMS = 3
SHOWN = 0.7  # share of a difference that the short runs of a screening show
POINTS = (2, 3, 5)
LARGEST = 5  # points, which a plan must be able to find
ENOUGH = 0.8  # chance
LEAST = 0.05  # accuracy on a need, below which all arms are alike
DRAWS = 4000
MORE_IMAGES = (2, 4, 8, 16)

SecondsOf = Callable[[TrialPlan], float]


@dataclass(frozen=True)
class Scatter:
    """Variance of the difference of two arms ("scatter"), on the need where it is largest.

    Attributes:
        of_seeds: variance from one seed to the next, the upper limit of an 80% interval: few runs often show too little.
        of_images: variance from one test image to the next.
        runs: trainings that it was estimated from.
        apart: True if the stages measure on different images; only the comparisons of the arms that are kept then count.
    """

    of_seeds: float
    of_images: float
    runs: int
    apart: bool = True

    @classmethod
    def of(cls, pilot: Trial, *, apart: bool = True) -> "Scatter":
        """Estimate it from the finished runs of a screening, of at least two trained arms with two seeds each.

        Raises:
            ValueError: fewer runs, a need was not measured, or no arm answers to it yet.

        Source: Browne 1995, doi:10.1002/sim.4780141709, for the upper limit.
        """
        measured = accuracies_of(pilot)
        trained = [number for number in range(len(measured.arms)) if number not in measured.untrained]
        hardened = [number for number in trained if meets_adversary(pilot.plan.arms[measured.arms[number]])]
        trained = hardened if len(hardened) > 1 else trained  # others scatter otherwise
        if len(trained) < 2 or len(measured.seeds) < 2:
            raise ValueError(
                f"the pilot has {len(trained)} trained arms and {len(measured.seeds)} seeds, but two of each are needed to see how "
                "results scatter: let screening have two seeds, or pass allow_weak=True to go on without"
            )
        part = measured.part(metrics=needed(pilot.plan, measured.metrics))
        best = part.values[trained].mean(axis=1).max(axis=0)
        low = [str(metric) for metric, value in zip(part.metrics, best, strict=True) if value < LEAST]
        if low:
            raise ValueError(
                f"after {pilot.plan.epochs:g} epochs no arm has {100 * LEAST:.0f}% right on {', '.join(low)}, so short runs tell "
                "neither how results scatter nor which arm is better: raise the epochs of the screening in the plan, or set "
                "screening to null and leave out arms"
            )
        pairs = [(first, second) for first in trained for second in trained if first < second]
        images = np.median(images_part(part.right, part.spread, pairs), axis=0) * part.images
        freedom = (len(trained) - 1) * (len(measured.seeds) - 1)
        of_seeds = pair_scatter(part.values[trained]) * freedom / chi2().isf(ENOUGH, freedom)
        return cls(float(of_seeds.max()), float(images.max()), len(trained) * len(measured.seeds), apart)


def chance(plan: TrialPlan, scatter: Scatter, difference: float) -> float:
    """Return the power: the probability that an arm that is better than the plain one by `difference` is kept and found.

    If several arms are screened, all others are assumed to equal the plain one; short runs show 0.7 of the difference.
    """
    return _kept(plan, scatter, difference) * _found(plan, scatter, difference)


def _kept(plan: TrialPlan, scatter: Scatter, difference: float) -> float:
    rivals = _trained(plan) - (plan.plain_arm is not None)
    if plan.screening is None:
        return 1.0
    first = Screening.of(plan.screening)
    places = first.keep - (plan.plain_arm is not None)
    if rivals <= places:
        return 1.0
    error = np.sqrt((scatter.of_seeds / len(first.seeds) + scatter.of_images / first.images) / 2)
    drawn = error * np.random.default_rng(0).standard_normal((DRAWS, rivals))
    above = (drawn[:, 1:] > drawn[:, :1] + SHOWN * difference).sum(axis=1)
    return float((above < places).mean())


def _found(plan: TrialPlan, scatter: Scatter, difference: float) -> float:
    seeds, images = len(plan.seeds), scatter.of_images / plan.evaluation.images
    if seeds < FEWEST_SEEDS:
        return 0.0
    looks = plan.looks or [seeds]
    known = [1 / (scatter.of_seeds / look + images + 1e-12) for look in looks]
    level = nominal_levels(LEVEL / _comparisons(plan, scatter.apart), [each / known[-1] for each in known])[-1]
    total = scatter.of_seeds / seeds + images
    share = scatter.of_seeds / seeds / total if total else 0.0
    arms = _going_on(plan)
    freedom = max(arms - 1, 1) * (seeds - 1) / max(share**2, 1e-6)
    error = np.sqrt(max(total, 1e-12))
    return float(student().sf(student().isf(level / 2, freedom) - difference / error, freedom))


def _trained(plan: TrialPlan) -> int:
    return sum(bool(phases) for phases in plan.arms.values())


def _going_on(plan: TrialPlan) -> int:
    """Count the trained arms of the second stage."""
    return _trained(plan) if plan.screening is None else min(Screening.of(plan.screening).keep, _trained(plan))


def _comparisons(plan: TrialPlan, apart: bool) -> int:
    """Count the comparisons with the plain arm; those with doing nothing are found first, and leave their level to these."""
    arms = _going_on(plan) if apart else _trained(plan)
    return max(1, len(plan.needs or [1]) * (arms - (plan.plain_arm is not None)))


def power_of(plan: TrialPlan, scatter: Scatter, seconds_of: SecondsOf) -> Power:
    """Return the plan's entry: the chance to find differences of 2, 3 and 5 points, and what it takes to find each."""
    entry: Power = {
        "scatter": f"at most {100 * np.sqrt(scatter.of_seeds):.1f} points from seed to seed, by {scatter.runs} short runs",
        "chance to find": {
            f"{points} points": f"{100 * chance(plan, scatter, points / 100):.0f}%" for points in POINTS
        },
        "8 times in 10": {},
    }
    for points in POINTS:
        ways = list(ways_to_find(plan, scatter, points / 100, seconds_of))
        entry["8 times in 10"][f"{points} points"] = ways[0] if ways else "out of reach with these arms and needs"
    return entry


def ways_to_find(plan: TrialPlan, scatter: Scatter, difference: float, seconds_of: SecondsOf) -> Iterator[str]:
    """Yield changes of the plan, each of which finds a difference 8 times in 10, with what the trial then costs."""

    def described(edited: TrialPlan, change: str) -> Iterator[str]:
        if chance(edited, scatter, difference) >= ENOUGH:
            yield f"{change} ({with_price(seconds_of(edited), plan)})"

    if chance(plan, scatter, difference) >= ENOUGH:
        yield from described(plan, "as it is")
        return
    for times in (1, *MORE_IMAGES):
        wider = with_images(plan, times)
        longer = next(
            (
                edited
                for count in range(len(plan.seeds), MOST_SEEDS + 1)
                if chance(edited := with_seeds(wider, count), scatter, difference) >= ENOUGH
            ),
            None,
        )
        if longer is not None:
            more = (
                ""
                if times == 1
                else f" and {times} times as many held-out images ({longer.evaluation.images:,} after the screening)"
            )
            yield from described(longer, f"{len(longer.seeds)} seeds{more}")
            break
    if plan.needs and len(plan.needs) > 1:
        yield from described(replace(plan, needs=plan.needs[:1]), f"{plan.needs[0]!r} as the only need")
    few = _fewest_arms(plan)
    if len(few.arms) < len(plan.arms):
        yield from described(few, f"the arms {', '.join(few.arms)} alone")


def with_images(plan: TrialPlan, times: int) -> TrialPlan:
    """Return the plan with more held-out images in both stages."""
    evaluation = replace(plan.evaluation, images=times * plan.evaluation.images)
    screening = None if plan.screening is None else {**plan.screening, "images": times * plan.screening["images"]}
    return replace(plan, evaluation=evaluation, screening=screening)


def _fewest_arms(plan: TrialPlan) -> TrialPlan:
    """Return the plan with doing nothing, the plain arm and one more."""
    others = [arm for arm in plan.arms if arm not in (plan.untrained_arm, plan.plain_arm)]
    kept = {arm for arm in (plan.untrained_arm, plan.plain_arm, *others[:1]) if arm is not None}
    return replace(plan, arms={arm: phases for arm, phases in plan.arms.items() if arm in kept}, screening=None)


def check_power(plan: TrialPlan, scatter: Scatter, seconds_of: SecondsOf, path: object) -> None:
    """Raise a ValueError for a plan that finds not even a difference of five points 8 times in 10, with what to change."""
    found = chance(plan, scatter, LARGEST / 100)
    if found >= ENOUGH:
        return
    ways = list(ways_to_find(plan, scatter, LARGEST / 100, seconds_of))
    advice = (
        f"any one of these finds it 8 times in 10: {'; '.join(ways)}"
        if ways
        else ("no number of seeds and images within reach does: take fewer arms and needs, or another model")
    )
    raise ValueError(
        f"the plan {str(path)!r} finds a difference of {LARGEST} points between arms in {100 * found:.0f}% of trials, by the scatter "
        f"of its pilot ({100 * np.sqrt(scatter.of_seeds):.1f} points from seed to seed): {advice}. Edit the plan and go on with "
        "resume=True, or pass allow_weak=True to run it as it is"
    )


def pilot_arms(plan: TrialPlan) -> Arms:
    """Return the arms whose screening runs come first, and show how results scatter: the plain one, and others against an adversary."""
    trained = sorted(
        (arm for arm, phases in plan.arms.items() if phases),
        key=lambda arm: (arm != plan.plain_arm, not meets_adversary(plan.arms[arm])),
    )
    return {arm: plan.arms[arm] for arm in plan.arms if arm in trained[:PILOT_ARMS]}
