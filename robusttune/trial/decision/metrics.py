"""Metrics of a staged trial, and every arm's accuracy on them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from robusttune.corruptions import FAMILIES
from robusttune.corruptions._benchmark import family_of
from robusttune.measuring.intervals import Z95
from robusttune.measuring.record import Record
from robusttune.measuring.records import Records
from robusttune.run.settings import shown_radius
from robusttune.trial.decision.criteria import ATTACK, ATTACKS, CLEAN, CORRUPTION, MetricKind
from robusttune.trial.decision.significance import Numbers
from robusttune.trial.plan import TrialPlan
from robusttune.trial.results import Result, Trial

Position: TypeAlias = Literal["below", "at", "above"]

WIDER = 2.0  # the radius "above" is the measured one nearest to twice the training radius


@dataclass(frozen=True)
class Metric:
    """Accuracy on unchanged images, under an attack, or on a family of corruptions.

    Attributes:
        kind: "clean", "attack" or "corruption".
        norm, eps, position: norm, radius and position of an attack; position is "below", "at" or "above" the radius that the plan has for the norm.
        trained: True if arms train against an attack of this norm.
        family: the family of corruptions.
    """

    kind: MetricKind
    norm: str = ""
    eps: float = 0.0
    position: Position | Literal[""] = ""
    trained: bool = False
    family: str = ""

    def __str__(self) -> str:
        if self.kind == ATTACK:
            return f"{self.norm} {shown_radius(self.eps)}"
        return self.family if self.kind == CORRUPTION else CLEAN


def label(metric: Metric) -> str:
    """Name a metric in a few words."""
    if metric.kind == ATTACK:
        return f"{metric} ({'radius' if metric.position == 'at' else metric.position})"
    return f"{metric} corruptions" if metric.kind == CORRUPTION else str(metric)


@dataclass(frozen=True)
class Accuracies:
    """Accuracies of all arms of a trial, with A arms, S seeds, N metrics and M images.

    Attributes:
        arms, seeds, metrics: in the plan's order; the seeds are those that all arms have.
        values: accuracies (A, S, N).
        spread: their standard errors (A, S, N) that come from the number of images.
        right: for each metric the share of right answers to each image (A, S, M); None if single images are not known.
        seconds: the seconds of training (A, S).
        images: number of test images.
        untrained: numbers of the arms that are one model, whatever the seed.
        left_out: arms without results, and seeds that not all arms have, in words.
    """

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    metrics: tuple[Metric, ...]
    values: Numbers
    spread: Numbers
    right: tuple[Numbers | None, ...]
    seconds: Numbers
    images: int
    untrained: frozenset[int]
    left_out: tuple[str, ...]

    def part(self, *, metrics: Sequence[Metric] | None = None, seeds: int | None = None) -> "Accuracies":
        """Return the accuracies on some of the metrics alone, and with the first seeds alone."""
        chosen = tuple(self.metrics if metrics is None else metrics)
        columns = [self.metrics.index(metric) for metric in chosen]
        singles = [self.right[column] for column in columns]
        return replace(
            self,
            metrics=chosen,
            seeds=self.seeds[:seeds],
            values=self.values[:, :seeds, columns],
            spread=self.spread[:, :seeds, columns],
            right=tuple(None if each is None else each[:, :seeds] for each in singles),
            seconds=self.seconds[:, :seeds],
        )


class _Answers(NamedTuple):
    """Accuracy of one model on a metric, its standard error, and the share of right answers to each image (M,)."""

    accuracy: float
    error: float
    shares: Numbers | None


def accuracies_of(trial: Trial) -> Accuracies:
    """Collect the accuracies that all arms of a trial have in common.

    Raises:
        ValueError: fewer than two arms with a seed in common, no metric that all have, or different test images.
    """
    results = {(result.arm, result.seed): result for result in trial.results}
    arms = [arm for arm in trial.plan.arms if any(arm == other for other, _ in results)]
    seeds = [seed for seed in trial.plan.seeds if all((arm, seed) in results for arm in arms)]
    if len(arms) < 2 or not seeds:
        raise ValueError(
            f"the trial has results of {len(arms)} arms ({', '.join(arms) or 'none'}) and {len(seeds)} seeds that all of "
            "them share, but two arms with one seed are needed: let it run on"
        )
    used = [results[arm, seed] for arm in arms for seed in seeds]
    _check_images(used)
    metrics = _common([metrics_of(result.records, trial.plan) for result in used])
    answers = [[_answers(result.records, metric) for metric in metrics] for result in used]
    shape = (len(arms), len(seeds), len(metrics))
    return Accuracies(
        arms=tuple(arms),
        seeds=tuple(seeds),
        metrics=tuple(metrics),
        values=np.array([[answer.accuracy for answer in row] for row in answers]).reshape(shape),
        spread=np.array([[answer.error for answer in row] for row in answers]).reshape(shape),
        right=tuple(_stacked([row[column].shares for row in answers], shape[:2]) for column in range(len(metrics))),
        seconds=np.array([result.seconds for result in used]).reshape(shape[:2]),
        images=len(used[0].records.hashes) or used[0].records[0].images,
        untrained=frozenset(number for number, arm in enumerate(arms) if not trial.plan.arms[arm]),
        left_out=tuple(_left_out(trial, arms, seeds, set(results))),
    )


def metrics_of(records: Records, plan: TrialPlan) -> list[Metric]:
    """List the metrics in the Records of one model: clean images, attacks below, at and above the radius, corruptions."""
    metrics = [Metric(CLEAN)] if _clean(records) is not None else []
    radii: dict[str, set[float]] = {}
    for record in records:
        if record.evaluation in ATTACKS and record.metric == "accuracy" and record.setting.get("eps", 0) > 0:
            radii.setdefault(record.setting["norm"], set()).add(record.setting["eps"])
    for norm, measured in radii.items():
        eps_values = sorted(measured)
        radius = float((plan.threats or {}).get(norm, eps_values[(len(eps_values) - 1) // 2]))
        trained = plan.threat is not None and plan.threat[0] == norm
        metrics += [
            Metric(ATTACK, norm, eps, position, trained) for position, eps in _positions(eps_values, radius).items()
        ]
    families = {family_of(record.setting["corruption"]) for record in records if "corruption" in record.setting}
    metrics += [Metric(CORRUPTION, family=family) for family in sorted(families, key=_order)]
    return metrics


def needed(plan: TrialPlan, metrics: Sequence[Metric]) -> list[Metric]:
    """Select the metrics that the plan's needs name: those that the trial must answer.

    Raises:
        ValueError: a need was not measured.
    """
    chosen: list[Metric] = []
    for need in plan.needs or []:
        found = [metric for metric in metrics if _answers_to(need, metric)]
        if not found:
            raise ValueError(
                f"the trial must answer {need!r}, but measured {', '.join(map(str, metrics))} alone: let the plan's items measure "
                "it, or change its needs"
            )
        chosen += found
    return list(dict.fromkeys(chosen))


def _answers_to(need: str, metric: Metric) -> bool:
    if metric.kind == ATTACK:
        return metric.position == "at" and (metric.trained if need == ATTACK else metric.norm == need)
    return need == (metric.family if metric.kind == CORRUPTION else CLEAN)


def _positions(eps_values: Sequence[float], radius: float) -> dict[Position, float]:
    """Select of the measured radii one below the plan's radius, near half of it, the radius, and one near twice it."""
    same = [eps for eps in eps_values if abs(eps - radius) <= 1e-6 * radius]
    below = [eps for eps in eps_values if eps < radius and eps not in same]
    above = [eps for eps in eps_values if eps > radius and eps not in same]
    positions: dict[Position, float] = {}
    if below:
        positions["below"] = min(below, key=lambda eps: abs(eps - radius / 2))
    if same:
        positions["at"] = same[0]
    if above:
        positions["above"] = min(above, key=lambda eps: abs(eps - WIDER * radius))
    return positions


def _answers(records: Records, metric: Metric) -> _Answers:
    """Read a model's accuracy on a metric: the worst attack of a radius, the mean over a family's corruptions."""
    rows = _rows(records, metric)
    singles = [np.array(row.right, dtype=float) for row in rows if row.right is not None]
    averaged = metric.kind == CORRUPTION
    if len(singles) == len(rows):
        stacked: Numbers = np.stack(singles)
        shares = stacked.mean(axis=0) if averaged else stacked.min(axis=0)
        return _Answers(float(shares.mean()), float(shares.std() / np.sqrt(len(shares))), shares)
    values = [row.value for row in rows]
    widths = [(high - low) / (2 * Z95) for low, high in (row.interval for row in rows)]
    # Without single images, the overlap of failures is not known: corruptions are taken to fail on the same images.
    return _Answers(float(np.mean(values) if averaged else np.min(values)), float(max(widths)), None)


def _rows(records: Records, metric: Metric) -> list[Record]:
    """Select the records of a metric."""
    if metric.kind == CLEAN:
        return [record for record in [_clean(records)] if record is not None]
    if metric.kind == ATTACK:
        rows = records.where(norm=metric.norm, eps=metric.eps)
        return [record for record in rows if record.evaluation in ATTACKS and record.metric == "accuracy"]
    family = [record for record in records if family_of(record.setting.get("corruption", "")) == metric.family]
    return [record for record in family if "severity" in record.setting and record.metric == "accuracy"]


def _clean(records: Records) -> Record | None:
    rows = [record for record in records.where("clean") if record.metric == "accuracy"]
    rows += [record for record in records.where("sweep") if record.setting.get("eps") == 0]
    return rows[0] if rows else None


def _check_images(results: Sequence[Result]) -> None:
    first = results[0]
    for result in results:
        if result.records.hashes and first.records.hashes and result.records.hashes != first.records.hashes:
            raise ValueError(
                f"arm {result.arm!r} with seed {result.seed} was measured on other images than arm {first.arm!r} with seed "
                f"{first.seed}: arms can only be compared on the same held-out images"
            )


def _common(metrics: Sequence[Sequence[Metric]]) -> list[Metric]:
    """List the metrics that all models have."""
    common = [metric for metric in metrics[0] if all(metric in others for others in metrics)]
    if not common:
        raise ValueError(
            "no accuracy was measured of all arms: let the plan's evaluation items hold 'clean' and 'sweep'"
        )
    return common


def _stacked(shares: Sequence[Numbers | None], shape: tuple[int, ...]) -> Numbers | None:
    known = [share for share in shares if share is not None]
    if len(known) < len(shares) or len({len(share) for share in known}) > 1:
        return None
    return np.stack(known).reshape(*shape, -1)


def _left_out(trial: Trial, arms: Sequence[str], seeds: Sequence[int], known: set[tuple[str, int]]) -> list[str]:
    """Describe the arms and seeds of the plan that are not compared; with looks, a trial may end before its last seed."""
    missing_arms = [arm for arm in trial.plan.arms if arm not in arms]
    dropped = [arm for arm in missing_arms if trial.kept is not None and arm not in trial.kept]
    lines = [f"{arm} was screened, and did not go on" for arm in dropped]
    lines += [f"{arm} has no results yet" for arm in missing_arms if arm not in dropped]
    trained = {seed for arm, seed in known if trial.plan.arms[arm]}
    begun = trained if trial.plan.looks else set(trial.plan.seeds)
    for seed in (seed for seed in trial.plan.seeds if seed in begun and seed not in seeds):
        missing = [arm for arm in arms if (arm, seed) not in known]
        lines.append(f"seed {seed} is left out, as {', '.join(missing)} has no results with it yet")
    return lines


def _order(family: str) -> int:
    return FAMILIES.index(family) if family in FAMILIES else len(FAMILIES)
