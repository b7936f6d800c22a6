"""How many seeds the next stage of a trial needs, and what it would cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robusttune.trial.decision.significance import FEWEST_SEEDS, LEVEL, student
from robusttune.trial.plan import HOUR, TrialPlan

POWER = 0.8
MOST = 20
OUT_OF_REACH = 5  # seeds, where the difference asked for would take more than MOST


@dataclass(frozen=True)
class Stage:
    """What to run next, and what that would cost.

    Attributes:
        arms: by name.
        seeds: how many.
        difference: of accuracy that these seeds find 8 times in 10, where it is there; None where nothing is known of it.
        least: the difference that any number of seeds would find, with as many held-out images.
        images, epochs: of training; None where they are not known.
        training, evaluation: seconds, on the machine that the trial ran on.
        money: at the price given; None without one.
        per_arm: seconds of training of each arm, for one seed.
    """

    arms: tuple[str, ...]
    seeds: int
    difference: float | None
    least: float | None
    images: int | None
    epochs: float | None
    training: float
    evaluation: float
    money: float | None
    per_arm: Mapping[str, float]


def needed_seeds(variance: float, images: float, difference: float, *, comparisons: int, arms: int) -> int | None:
    """How many seeds find a difference of accuracy 8 times in 10, corrected for many comparisons; None for over 20.

    Args:
        variance: of the difference of two arms from seed to seed.
        images: the variance that more seeds do not lower, as it comes from the images.
        difference: to be found, as a share.
        comparisons: that will be made.
        arms: that are trained.

    Example:
        >>> needed_seeds(0.02**2, 0.005**2, 0.04, comparisons=20, arms=3)
        7
    """
    for seeds in range(FEWEST_SEEDS, MOST + 1):
        if detectable(variance, images, seeds, comparisons=comparisons, arms=arms) <= difference:
            return seeds
    return None


def detectable(variance: float, images: float, seeds: int, *, comparisons: int, arms: int) -> float:
    """The smallest difference of accuracy that so many seeds find 8 times in 10; see `needed_seeds`."""
    total = variance / seeds + images
    # The images' part is known well: it adds to the error, and nothing to its uncertainty.
    known = (total / (variance / seeds)) ** 2 if variance > 0 else 1e9
    freedom = max(arms - 1, 1) * (seeds - 1) * known
    quantiles = student().ppf([1 - LEVEL / (2 * comparisons), POWER], freedom)
    return float(quantiles.sum() * np.sqrt(total))


def chosen_seeds(
    variance: float | None, images: float, difference: float, *, comparisons: int, arms: int
) -> tuple[int, float | None, float | None]:
    """How many seeds to take, the difference that they find, and the one that any number of seeds would find.

    That is the difference asked for, or where 20 seeds cannot find it, another; where nothing is known of the scatter,
    three seeds.
    """
    if variance is None:
        return FEWEST_SEEDS, None, None
    settings = {"comparisons": comparisons, "arms": arms}
    seeds = needed_seeds(variance, images, difference, **settings) or OUT_OF_REACH
    return seeds, detectable(variance, images, seeds, **settings), detectable(0.0, images, MOST, **settings)


def stage(
    arms: Sequence[str],
    reach: tuple[int, float | None, float | None],
    *,
    seconds: Mapping[str, float],
    evaluation: float,
    plan: TrialPlan,
    images: int | None,
    epochs: float | None,
) -> Stage:
    """The next stage's cost, from the seconds of the trial: they grow with images and epochs of training.

    Args:
        arms: to run again.
        reach: what `chosen_seeds` returned.
        seconds: of training in the trial, by arm, for one seed.
        evaluation: seconds in the trial, of one model.
        plan: of the trial.
        images, epochs: of training in the next stage; those of the trial unless given.
    """
    before = plan.training_images
    scale = (images / before if images and before else 1.0) * (epochs / plan.epochs if epochs else 1.0)
    each = {arm: seconds[arm] * scale for arm in arms}
    seeds = reach[0]
    trained = sum(each.values()) * seeds
    measured = evaluation * sum(seeds if seconds[arm] > 0 else 1 for arm in arms)
    money = None if plan.price is None else (trained + measured) / HOUR * float(plan.price)
    return Stage(tuple(arms), *reach, images or before, epochs or plan.epochs, trained, measured, money, each)
