"""Decides from a finished trial whether to go on, and with which arms."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from robusttune.measuring.html import page
from robusttune.run.writing import write_text
from robusttune.trial.decision.answer import Rivals, reason_to_take
from robusttune.trial.decision.confirmed import confirmed, exploratory
from robusttune.trial.decision.criteria import Criteria, MetricKind, criteria
from robusttune.trial.decision.findings import Findings, findings_of
from robusttune.trial.decision.metrics import Accuracies, Metric, accuracies_of, needed
from robusttune.trial.decision.next_stage import NextStage, chosen_seeds, in_time, next_stage, seeds_in_words
from robusttune.trial.decision.one_side import STYLE as ONE_SIDE
from robusttune.trial.decision.one_side import one_side
from robusttune.trial.decision.page import markdown
from robusttune.trial.decision.screened import second_stage
from robusttune.trial.decision.significance import FEWEST_SEEDS, pair_scatter
from robusttune.trial.decision.verdict import (
    Decision,
    Evidence,
    Verdict,
    baselines,
    judged,
    ranked_arms,
    reason_to_go_on,
    with_results,
)
from robusttune.trial.plan_checks import check_budget
from robusttune.trial.results import Trial
from robusttune.types import PathLike

REPEATED = 2  # arms beside the baselines that the next stage repeats


def decide(
    trial: Trial,
    *,
    worthwhile: float | None = None,
    clean_loss: float | None = None,
    matters: MetricKind | Sequence[MetricKind] | None = None,
    images: int | None = None,
    epochs: float | None = None,
) -> Decision:
    """Decide from a trial: go on with some arms, do nothing, or not enough data to tell.

    An arm's accuracies are compared with those of two baselines with the same seeds: doing nothing, and adversarial
    training without pretext task. The comparisons on what the trial was to answer are corrected together, over all looks;
    those of trials of earlier versions, which name no needs, all together.

    The arguments come before the criteria of the plan's `decision`, and those before the defaults.

    Args:
        trial: its plan and results, as `Trial.load(folder)` reads them; unfinished arms and seeds are left out.
        worthwhile: the smallest gain of accuracy that is worth the effort, a share; 0.02 by default.
        clean_loss: the largest loss of clean accuracy that is accepted, a share; any by default.
        matters: kinds of metrics on which a gain counts: "attack", "corruption", "clean"; the first two by default.
        images, epochs: numbers of training images and epochs in the next stage, for its cost; by default those of the trial.

    Raises:
        ValueError: settings out of range; fewer than two arms with a seed in common; arms measured on different images.
        ImportError: scipy is not installed.

    Source: Student's t over seeds with Holm's correction; see `robusttune.trial.decision.significance`.
    """
    arguments = {
        "worthwhile": worthwhile,
        "clean_loss": clean_loss,
        "matters": matters,
        "images": images,
        "epochs": epochs,
    }
    passed = {name: value for name, value in arguments.items() if value is not None}
    if matters is not None and trial.plan.looks is not None:
        raise ValueError("matters= is for trials of earlier versions: this trial answers the needs in its plan")
    check_budget(trial.plan.budget)  # it may have been edited, and stands on the page
    asked = criteria({**(trial.plan.decision or {}), **passed})
    trial = second_stage(trial)
    measured = accuracies_of(trial)
    evidence, ranked, reason = (_at_once if trial.plan.looks is None else _with_looks)(trial, measured, asked)
    verdict, words, candidates = judged(measured, evidence, ranked, reason)
    decision = Decision(
        verdict, words, candidates, trial, measured, evidence.findings, asked.worthwhile, asked.clean_loss
    )
    sight = None if trial.plan.looks is None else exploratory(trial, measured, baselines(trial, measured))
    stage = _next(decision, asked)
    if stage is not None and decision.verdict is Verdict.NOT_ENOUGH and len(measured.seeds) >= FEWEST_SEEDS:
        missing = seeds_in_words(stage, decision.worthwhile, measured.images)
        cost = in_time(stage.training + stage.evaluation)
        decision = replace(decision, reason=f"{words} What is missing: a stage of {cost}, its seeds {missing}")
    return replace(decision, next=stage, sight=sight)


# Comparisons with criteria, the arms in order, and the function that words a recommendation of arms.
_Found = tuple[Evidence, Sequence[str], Callable[[Evidence, Sequence[str]], str]]


def _at_once(trial: Trial, measured: Accuracies, asked: Criteria) -> _Found:
    """Compare all arms on all metrics that matter, after all seeds, as trials of earlier versions did."""
    findings = findings_of(measured, baselines(trial, measured))
    metrics = [metric for metric in measured.metrics if metric.kind in asked.matters]
    nothing = with_results(trial.plan.untrained_arm, measured)
    evidence = Evidence(findings, nothing, metrics, asked.worthwhile, asked.clean_loss)
    return evidence, ranked_arms(trial, measured, findings, metrics), reason_to_go_on


def _with_looks(trial: Trial, measured: Accuracies, asked: Criteria) -> _Found:
    """Compare the arms that were kept on the needs of the trial, at each look."""
    findings = confirmed(trial, measured, baselines(trial, measured), asked.worthwhile)
    metrics = needed(trial.plan, measured.metrics)
    nothing, plain = (with_results(arm, measured) for arm in (trial.plan.untrained_arm, trial.plan.plain_arm))
    evidence = Evidence(findings, nothing, metrics, asked.worthwhile, asked.clean_loss)
    rivals = Rivals(findings, plain or nothing or "", metrics, asked.worthwhile)
    arms = [arm for arm in measured.arms if arm not in (nothing, plain)]
    return evidence, rivals.ranked(arms, plain), partial(reason_to_take, rivals, arms, plain)


def write(decision: Decision, folder: PathLike) -> Path:
    """Write a decision as pages: `decision.md` with its plots, `decision.html`, and `one-side.html`, which is one side of A4.

    Args:
        decision: the result of `decide`.
        folder: created if it does not exist.

    Raises:
        ImportError: matplotlib or markdown is not installed.

    Returns:
        The path of `decision.md`.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    text = markdown(decision, place)
    html = page(text, place, title="Decision report")
    path = place / "decision.md"
    write_text(path, text)
    write_text(place / "decision.html", html)
    write_text(place / "one-side.html", page(one_side(decision, place), place, title="Decision", style=ONE_SIDE))
    return path


def _next(decision: Decision, asked: Criteria) -> NextStage | None:
    """Plan the next stage; None if the verdict is to do nothing."""
    if decision.verdict is Verdict.DO_NOTHING:
        return None
    measured = decision.measured
    first = [arm for arm in (decision.nothing, decision.plain) if arm is not None]
    others = [arm for arm in decision.candidates if arm not in first]
    # Too few seeds are no reason to drop an arm.
    repeated = others if len(measured.seeds) < FEWEST_SEEDS else others[:REPEATED]
    arms = [arm for arm in measured.arms if arm in first or arm in repeated]
    trained = sum(arm != decision.nothing for arm in arms)
    variance, of_images = _scatter(measured, decision.findings, needed(decision.trial.plan, measured.metrics))
    metrics = needed(decision.trial.plan, measured.metrics) or measured.metrics
    comparisons = max(1, len(metrics) * (2 * trained - 1))
    return next_stage(
        arms,
        chosen_seeds(variance, of_images, decision.worthwhile, comparisons=comparisons, arms=trained),
        seconds=dict(zip(measured.arms, measured.seconds.mean(axis=1).tolist(), strict=True)),
        evaluation=_evaluation_seconds(decision.trial),
        plan=decision.trial.plan,
        images=asked.images,
        epochs=asked.epochs,
    )


def _evaluation_seconds(trial: Trial) -> dict[str, tuple[float, float]]:
    """Return the mean seconds of the evaluations of each arm's models: with the seeds of the first look, and with the others."""
    first = trial.plan.first_seeds
    seconds: dict[str, tuple[float, float]] = {}
    for arm in dict.fromkeys(result.arm for result in trial.results):
        spent = {result.seed in first: list[float]() for result in trial.results}
        for result in (result for result in trial.results if result.arm == arm):
            costs = result.records.facts.get("evaluations", {}).values()
            spent[result.seed in first].append(sum(cost.get("seconds", 0.0) for cost in costs))
        means = {closely: float(np.mean(values)) for closely, values in spent.items() if values}
        seconds[arm] = (means.get(True, means.get(False, 0.0)), means.get(False, means.get(True, 0.0)))
    return seconds


def _scatter(measured: Accuracies, findings: Findings, needs: Sequence[Metric]) -> tuple[float | None, float]:
    """Return the variance of a difference of two arms from seed to seed (None if unknown), and the images' part of it.

    The metrics are the needs of the trial. A trial of an earlier version has none: then it is the attack that arms train against, at its
    radius, and without that the metric that scatters most.
    """
    trained = [arm for arm in range(len(measured.arms)) if arm not in measured.untrained]
    main = [measured.metrics.index(metric) for metric in needs]
    main = main or [
        column for column, metric in enumerate(measured.metrics) if metric.trained and metric.position == "at"
    ]
    columns = main or list(range(len(measured.metrics)))
    of_images = float(findings.images_part[columns].max() ** 2)
    if len(measured.seeds) < 2 or len(trained) < 2:
        return None, of_images
    return float(pair_scatter(measured.values[trained])[columns].max()), of_images
