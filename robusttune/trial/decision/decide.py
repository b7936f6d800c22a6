"""Decides from a finished trial whether to go on, and with which arms."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from robusttune.measuring.html import page
from robusttune.run.files import write_text
from robusttune.trial.decision.criteria import Criteria, MetricKind, criteria
from robusttune.trial.decision.findings import Findings, findings_of
from robusttune.trial.decision.metrics import Accuracies, accuracies_of
from robusttune.trial.decision.next_stage import NextStage, chosen_seeds, next_stage
from robusttune.trial.decision.page import markdown
from robusttune.trial.decision.significance import FEWEST_SEEDS, pair_scatter
from robusttune.trial.decision.verdict import Decision, Verdict, baselines, judged
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
    training without pretext task. All comparisons are corrected together.

    The arguments come before the criteria of the plan's `decision`, and those before the defaults.

    Args:
        trial: its plan and results, as `Trial.load(folder)` reads them; unfinished arms and seeds are left out.
        worthwhile: the smallest gain of accuracy that is worth the effort, a share; 0.02 by default.
        clean_loss: the largest loss of clean accuracy that is accepted, a share; any by default.
        matters: kinds of metrics on which a gain counts: "attack", "corruption", "clean"; the first two by default.
        images, epochs: of training in the next stage, for its cost; those of the trial by default.

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
    asked = criteria({**(trial.plan.decision or {}), **passed})
    measured = accuracies_of(trial)
    findings = findings_of(measured, baselines(trial, measured))
    verdict, reason, candidates = judged(
        trial, measured, findings, worthwhile=asked.worthwhile, clean_loss=asked.clean_loss, matters=asked.matters
    )
    decision = Decision(verdict, reason, candidates, trial, measured, findings, asked.worthwhile, asked.clean_loss)
    return replace(decision, next=_next(decision, asked))


def write(decision: Decision, folder: PathLike) -> Path:
    """Write a decision as pages and return the path of the first: `decision.md` with its plots, and `decision.html`.

    Args:
        decision: the result of `decide`.
        folder: created if it does not exist.

    Raises:
        ImportError: matplotlib or markdown is not installed.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    text = markdown(decision, place)
    html = page(text, place, title="Decision report")
    path = place / "decision.md"
    write_text(path, text)
    write_text(place / "decision.html", html)
    return path


def _next(decision: Decision, asked: Criteria) -> NextStage | None:
    """Plan the next stage; None where the verdict is to do nothing."""
    if decision.verdict is Verdict.DO_NOTHING:
        return None
    measured = decision.measured
    first = [arm for arm in (decision.nothing, decision.plain) if arm is not None]
    others = [arm for arm in decision.candidates if arm not in first]
    # Too few seeds are no reason to drop an arm.
    repeated = others if len(measured.seeds) < FEWEST_SEEDS else others[:REPEATED]
    arms = [arm for arm in measured.arms if arm in first or arm in repeated]
    trained = sum(arm != decision.nothing for arm in arms)
    variance, of_images = _scatter(measured, decision.findings)
    comparisons = max(1, len(measured.metrics) * (2 * trained - 1))
    return next_stage(
        arms,
        chosen_seeds(variance, of_images, decision.worthwhile, comparisons=comparisons, arms=trained),
        seconds=dict(zip(measured.arms, measured.seconds.mean(axis=1).tolist(), strict=True)),
        evaluation=_evaluation_seconds(decision.trial),
        plan=decision.trial.plan,
        images=asked.images,
        epochs=asked.epochs,
    )


def _evaluation_seconds(trial: Trial) -> float:
    """Return the mean seconds of all evaluations of a model."""
    costs = [result.records.facts.get("evaluations", {}) for result in trial.results]
    return float(np.mean([sum(cost.get("seconds", 0.0) for cost in by_evaluation.values()) for by_evaluation in costs]))


def _scatter(measured: Accuracies, findings: Findings) -> tuple[float | None, float]:
    """Return the variance of a difference of two arms from seed to seed (None if unknown), and the images' part of it.

    The metric is the attack that arms train against, at its radius; without it, the one that scatters most.
    """
    trained = [arm for arm in range(len(measured.arms)) if arm not in measured.untrained]
    main = [column for column, metric in enumerate(measured.metrics) if metric.trained and metric.position == "at"]
    columns = main or list(range(len(measured.metrics)))
    of_images = float(findings.images_part[columns].max() ** 2)
    if len(measured.seeds) < 2 or len(trained) < 2:
        return None, of_images
    return float(pair_scatter(measured.values[trained])[columns].max()), of_images
