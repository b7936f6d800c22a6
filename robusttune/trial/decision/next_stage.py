"""Next stage of a trial: the number of seeds that it needs, and its cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from robusttune.trial.decision.significance import FEWEST_SEEDS, LEVEL, student
from robusttune.trial.plan import HOUR, TrialPlan

POWER = 0.8
MOST = 20
OUT_OF_REACH = 5  # seeds, where the requested difference would take more than MOST


class Seeds(NamedTuple):
    """A number of seeds and its statistical power.

    Attributes:
        seeds: how many.
        difference: the difference of accuracy that these seeds detect 8 times in 10; None if the scatter is not known.
        min_detectable: the smallest difference detectable with infinitely many seeds on this many test images.
    """

    seeds: int
    difference: float | None
    min_detectable: float | None


@dataclass(frozen=True)
class NextStage:
    """Arms and seeds to run next, and their cost.

    Attributes:
        arms: by name.
        seeds, difference, min_detectable: see `Seeds`.
        images, epochs: numbers of training images and epochs; None if they are not known.
        training, evaluation: seconds, on the machine of the trial.
        money: at the plan's price; None without one.
        per_arm: seconds of training of each arm, for one seed.
    """

    arms: tuple[str, ...]
    seeds: int
    difference: float | None
    min_detectable: float | None
    images: int | None
    epochs: float | None
    training: float
    evaluation: float
    money: float | None
    per_arm: Mapping[str, float]


def needed_seeds(variance: float, images: float, difference: float, *, comparisons: int, arms: int) -> int | None:
    """Return the number of seeds that detect a difference of accuracy 8 times in 10; None for more than 20.

    Args:
        variance: the variance of the difference of two arms from seed to seed.
        images: the variance that comes from the test images; more seeds do not lower it.
        difference: to be detected, as a share.
        comparisons: number that the result is corrected for.
        arms: number of trained arms.

    Example:
        >>> needed_seeds(0.02**2, 0.005**2, 0.04, comparisons=20, arms=3)
        7
    """
    for seeds in range(FEWEST_SEEDS, MOST + 1):
        if detectable(variance, images, seeds, comparisons=comparisons, arms=arms) <= difference:
            return seeds
    return None


def detectable(variance: float, images: float, seeds: int, *, comparisons: int, arms: int) -> float:
    """Return the smallest difference of accuracy that this number of seeds detects 8 times in 10; see `needed_seeds`."""
    total = variance / seeds + images
    # The images' part is known well: it adds to the error, but not to the error's uncertainty.
    known = (total / (variance / seeds)) ** 2 if variance > 0 else 1e9
    freedom = max(arms - 1, 1) * (seeds - 1) * known
    quantiles = student().ppf([1 - LEVEL / (2 * comparisons), POWER], freedom)
    return float(quantiles.sum() * np.sqrt(total))


def chosen_seeds(variance: float | None, images: float, difference: float, *, comparisons: int, arms: int) -> Seeds:
    """Choose a number of seeds; see `needed_seeds`.

    Where 20 seeds do not detect the difference, five are chosen; where the scatter is not known, three.
    """
    if variance is None:
        return Seeds(FEWEST_SEEDS, None, None)
    seeds = needed_seeds(variance, images, difference, comparisons=comparisons, arms=arms) or OUT_OF_REACH
    return Seeds(
        seeds,
        detectable(variance, images, seeds, comparisons=comparisons, arms=arms),
        detectable(0.0, images, MOST, comparisons=comparisons, arms=arms),
    )


def next_stage(
    arms: Sequence[str],
    chosen: Seeds,
    *,
    seconds: Mapping[str, float],
    evaluation: Mapping[str, tuple[float, float]],
    plan: TrialPlan,
    images: int | None,
    epochs: float | None,
) -> NextStage:
    """Compute the next stage's cost from the seconds of the trial, in proportion to images and epochs of training.

    Args:
        arms: to run again.
        chosen: number of seeds.
        seconds: the seconds of training in the trial, by arm, for one seed.
        evaluation: seconds in the trial, of one model of each arm: with the seeds of the first look, and with the others.
        plan: the plan of the trial.
        images, epochs: numbers of training images and epochs in the next stage; None for those of the trial.
    """
    before = plan.training_images
    scale = (images / before if images and before else 1.0) * (epochs / plan.epochs if epochs else 1.0)
    per_arm = {arm: seconds[arm] * scale for arm in arms}
    training = sum(per_arm.values()) * chosen.seeds
    closely = min(chosen.seeds, len(plan.first_seeds))
    measuring = 0.0
    for arm in arms:
        at_first, later = evaluation[arm]
        measuring += at_first if seconds[arm] == 0 else closely * at_first + (chosen.seeds - closely) * later
    return NextStage(
        arms=tuple(arms),
        seeds=chosen.seeds,
        difference=chosen.difference,
        min_detectable=chosen.min_detectable,
        images=images or before,
        epochs=epochs or plan.epochs,
        training=training,
        evaluation=measuring,
        money=None if plan.price is None else (training + measuring) / HOUR * float(plan.price),
        per_arm=per_arm,
    )


def seeds_in_words(stage: NextStage, wanted: float, images: int) -> str:
    """State how many seeds the next stage has, and what they find.

    Args:
        stage: the stage that is planned.
        wanted: the difference to be found, a share.
        images: number of held-out images in the trial.
    """
    if stage.difference is None:
        return f"{stage.seeds}, as the scatter is not known yet."
    if stage.difference <= wanted:
        return f"{stage.seeds}. As results scatter here, they notice a difference of {100 * wanted:.3g} points 8 times in 10."
    smallest = stage.min_detectable or 0.0
    reason = "takes more than 20 seeds"
    if smallest > wanted:
        enough = int(np.ceil(images * (smallest / wanted) ** 2 / 100)) * 100
        reason = f"takes more than {enough:,} held-out images, and more seeds do not help"
    found = f"{stage.seeds}, which notice a difference of {100 * stage.difference:.1f} points 8 times in 10"
    return f"{found}; to notice {100 * wanted:.3g} points {reason}."


def costs_in_words(stage: NextStage, plan: TrialPlan) -> list[str]:
    """State what the next stage costs on the machine of the trial, and on a rented one where the plan has its price and pace."""
    seconds, budget = stage.training + stage.evaluation, plan.budget or {}
    own = f"on the machine of this trial {in_time(seconds)}"
    if plan.price is not None and stage.money is not None:
        own += f" and {plan.money(1, stage.money)}, at {plan.money(1, plan.price)} an hour"
    cloud = budget.get("cloud")
    if cloud is None:
        hint = (
            " In money it is not known, as `budget` in plan.yaml has no `price an hour`." if plan.price is None else ""
        )
        return [f"{own[0].upper()}{own[1:]}.{hint}"]
    hours = seconds / cloud["times as fast"] / HOUR
    price, paid = cloud["price an hour"], hours * cloud["price an hour"]
    rented = (
        f"on a rented one, {cloud['times as fast']:g} times as fast, {in_time(hours * HOUR)} and {plan.money(1, paid)}, at "
        f"{plan.money(1, price)} an hour"
    )
    lines = [f"{own[0].upper()}{own[1:]}; {rented}."]
    if stage.money is not None:
        less, apart = "Renting" if paid < stage.money else "This machine", abs(paid - stage.money)
        alike = apart < 0.02 * max(paid, stage.money)
        lines.append("Both cost about the same." if alike else f"{less} is cheaper by {plan.money(1, apart)}.")
    return lines


def in_time(seconds: float) -> str:
    """Format seconds for people.

    Example:
        >>> in_time(90), in_time(600), in_time(40 * 3600)
        ('90 s', '10 min', '40 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    value, unit = (seconds / 60, "min") if seconds < 2 * HOUR else (seconds / HOUR, "h")
    return f"{value:.1f} {unit}" if value < 10 else f"{value:,.0f} {unit}"
