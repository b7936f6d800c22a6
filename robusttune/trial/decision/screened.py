"""Selection of the arms that go on after the screening."""

from dataclasses import replace

from robusttune.trial.decision.criteria import CLEAN, criteria
from robusttune.trial.decision.metrics import Accuracies, Metric, accuracies_of, needed
from robusttune.trial.plan import TrialPlan
from robusttune.trial.results import Trial
from robusttune.trial.screening import Screening

DOUBT = 0.03  # loss of clean accuracy beyond the accepted one, by which the screening may be mistaken


def kept_arms(trial: Trial) -> list[str]:
    """Return the arms that go on to the second stage, in the plan's order; all of them where there is no first stage.

    The arm that does nothing and the plain one always go on. Of the others, those with the highest accuracy: the best on
    the first need, the best of the rest on the second, and so on in turn. Arms that lose far more clean accuracy than is
    accepted come last.

    Args:
        trial: its first stage is finished.

    Raises:
        ValueError: the first stage has too few results.
    """
    plan, first = trial.plan, trial.first
    if first is None or plan.screening is None:
        return list(plan.arms)
    measured = accuracies_of(first)
    always = [arm for arm in (plan.untrained_arm, plan.plain_arm) if arm is not None]
    open_places = Screening.of(plan.screening).keep - (plan.plain_arm is not None)
    chosen = [*always, *_best(plan, measured, always)[:open_places]]
    return [arm for arm in plan.arms if arm in chosen]


def second_stage(trial: Trial) -> Trial:
    """Return the trial with the results of the arms that went on alone."""
    if trial.first is None:
        return trial
    kept = kept_arms(trial)
    return replace(trial, kept=tuple(kept), results=[result for result in trial.results if result.arm in kept])


def _best(plan: TrialPlan, measured: Accuracies, always: list[str]) -> list[str]:
    """Sort the other arms, the best of each need in turn."""
    means = measured.values.mean(axis=1)
    columns = [measured.metrics.index(metric) for metric in needed(plan, measured.metrics)]
    left = [number for number, arm in enumerate(measured.arms) if arm not in always]
    refused = _too_costly(plan, measured)
    order: list[int] = []
    while left:
        for column in columns:
            if left:
                best = max(left, key=lambda arm: (arm not in refused, means[arm, column]))
                left.remove(best)
                order.append(best)
    return [measured.arms[number] for number in order]


def _too_costly(plan: TrialPlan, measured: Accuracies) -> set[int]:
    """Return the arms, by number, whose clean accuracy falls far below what is accepted."""
    accepted, clean = criteria(plan.decision).clean_loss, Metric(CLEAN)
    if accepted is None or plan.untrained_arm not in measured.arms or clean not in measured.metrics:
        return set()
    means = measured.values.mean(axis=1)[:, measured.metrics.index(clean)]
    floor = means[measured.arms.index(plan.untrained_arm)] - accepted - DOUBT
    return {number for number, mean in enumerate(means) if mean < floor}
