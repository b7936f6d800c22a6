"""Comparisons of a trial with looks: those that its needs name, at each look, and all others as exploratory ones."""

from collections.abc import Sequence
from dataclasses import replace

from robusttune.trial.decision.findings import Comparison, Findings, against, findings_of
from robusttune.trial.decision.metrics import Accuracies, Metric, accuracies_of, needed
from robusttune.trial.decision.sequential import Standing, standing
from robusttune.trial.decision.significance import FEWEST_SEEDS
from robusttune.trial.results import Trial


def confirmed(trial: Trial, measured: Accuracies, baselines: Sequence[str], worthwhile: float) -> Findings:
    """Test every arm that was kept against the baselines: on the needs of the trial, at each of its looks.

    The needs alone share the level of significance. The other comparisons are exploratory, and corrected for each other.

    Args:
        trial: with looks in its plan.
        measured: accuracies of the arms that were kept.
        baselines: arms by name.
        worthwhile: the smallest gain that counts, a share.

    Raises:
        ValueError: a need was not measured.
    """
    needs = needed(trial.plan, measured.metrics)
    looks = trial.plan.looks or [len(trial.plan.seeds)]
    pairs = against(measured, baselines)
    found = findings_of(measured, baselines)
    if not pairs or len(measured.seeds) < max(FEWEST_SEEDS, looks[0]):
        return replace(found, comparisons=())
    whole = len(needs) * _most_pairs(trial, measured, baselines)
    seen = standing(measured.part(metrics=needs), pairs, looks, worthwhile=worthwhile, comparisons=whole)
    rest = [metric for metric in measured.metrics if metric not in needs]
    others = findings_of(measured.part(metrics=rest), baselines).comparisons if rest else ()
    rest_of_them = tuple(replace(each, exploratory=True) for each in others)
    comparisons = (*_comparisons(seen, measured, pairs, needs), *rest_of_them)
    return replace(found, comparisons=comparisons, answered=seen.answered(pairs))


def exploratory(trial: Trial, measured: Accuracies, baselines: Sequence[str]) -> tuple[Accuracies, Findings] | None:
    """Return what was measured with the seeds of the first look alone, and its tests; None if there is nothing.

    Args:
        trial: with looks in its plan.
        measured: what was measured with all seeds.
        baselines: arms by name.
    """
    first = replace(trial, results=[each for each in trial.results if each.seed in trial.plan.first_seeds])
    sight = accuracies_of(first)
    rest = [metric for metric in sight.metrics if metric not in measured.metrics]
    if not rest:
        return None
    part = sight.part(metrics=rest)
    findings = findings_of(part, baselines)
    return part, replace(findings, comparisons=tuple(replace(each, exploratory=True) for each in findings.comparisons))


def _comparisons(
    seen: Standing, measured: Accuracies, pairs: Sequence[tuple[int, int]], needs: Sequence[Metric]
) -> list[Comparison]:
    return [
        Comparison(
            measured.arms[arm],
            measured.arms[baseline],
            need,
            value=float(seen.value[row, column]),
            low=float(seen.low[row, column]),
            high=float(seen.high[row, column]),
            p=float(seen.p[row, column]),
            real=bool(seen.real[row, column]),
        )
        for row, (baseline, arm) in enumerate(pairs)
        for column, need in enumerate(needs)
    ]


def _most_pairs(trial: Trial, measured: Accuracies, baselines: Sequence[str]) -> int:
    """Return the number of pairs to correct for: of all arms that were screened where that was done on the same images."""
    kept = len(against(measured, baselines))
    if trial.first is None or not share_images(trial, trial.first):
        return kept
    return sum(len(trial.plan.arms) - 1 - number for number in range(len(baselines)))


def share_images(trial: Trial, first: Trial) -> bool:
    """Return True if both stages measured on an image, or if that is not known."""
    seen = [{image for result in each.results for image in result.records.hashes} for each in (trial, first)]
    return not all(seen) or bool(seen[0] & seen[1])
