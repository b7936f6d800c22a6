"""Verdict of a trial: go on, do nothing, or not enough data, and the reason."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeAlias

from robusttune.tasks._weights import felt
from robusttune.training.presets import EARLIER
from robusttune.trial.arms import Phase, Settings
from robusttune.trial.arms._phase import meets_adversary, name_and_settings, tasks_of
from robusttune.trial.decision.criteria import CLEAN
from robusttune.trial.decision.findings import Comparison, Findings
from robusttune.trial.decision.metrics import Accuracies, Metric
from robusttune.trial.decision.next_stage import NextStage
from robusttune.trial.decision.significance import FEWEST_SEEDS
from robusttune.trial.results import Trial

ROUNDING = 1e-12  # 0.82 minus 0.8 is a little less than 0.02
CleanLoss: TypeAlias = Literal["accepted", "refused", "unclear"]


class Verdict(str, Enum):
    """The possible verdicts of a trial."""

    GO_ON = "go on"
    DO_NOTHING = "do nothing"
    NOT_ENOUGH = "not enough data to tell"


@dataclass(frozen=True)
class Decision:
    """The verdict of a trial, with its reason and the numbers behind it.

    Attributes:
        verdict: one of three.
        reason: in a few sentences.
        candidates: the arms to go on with, the most promising first; none where the verdict is to do nothing.
        trial, measured, findings: the trial, its accuracies and their significance tests.
        worthwhile: the smallest gain of accuracy that is worth it, a share.
        clean_loss: the largest loss of clean accuracy that is accepted; None for any.
        next: the next stage; None if there is none.
        sight: accuracies and tests of what was measured with the seeds of the first look alone; None if there is nothing.
    """

    verdict: Verdict
    reason: str
    candidates: tuple[str, ...]
    trial: Trial
    measured: Accuracies
    findings: Findings
    worthwhile: float
    clean_loss: float | None
    next: NextStage | None = None
    sight: tuple[Accuracies, Findings] | None = None

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """All metrics that were measured, with all seeds or with the first ones."""
        return (*self.measured.metrics, *(self.sight[0].metrics if self.sight else ()))

    @property
    def nothing(self) -> str | None:
        """The arm that does nothing, if it has results."""
        return with_results(self.trial.plan.untrained_arm, self.measured)

    @property
    def plain(self) -> str | None:
        """The arm of adversarial training without pretext task, if it has results."""
        return with_results(self.trial.plan.plain_arm, self.measured)


@dataclass(frozen=True)
class Evidence:
    """Comparisons that a verdict is based on, and the criteria for them.

    Attributes:
        findings: significance tests.
        nothing: the arm that does nothing; None without one.
        metrics: on which a gain counts.
        worthwhile: the smallest gain that counts, a share.
        clean_loss: the largest loss of clean accuracy that is accepted; None for any.
    """

    findings: Findings
    nothing: str | None
    metrics: Sequence[Metric]
    worthwhile: float
    clean_loss: float | None

    def gains(self, arm: str) -> list[Comparison]:
        """List the metrics on which an arm is better than doing nothing, significantly and by enough."""
        return [test for test in self._comparisons(arm) if test.real and test.value >= self.worthwhile - ROUNDING]

    def may_gain(self, arm: str) -> bool:
        """Return True if a worthwhile gain lies inside the interval of any metric."""
        return any(test.high >= self.worthwhile for test in self._comparisons(arm))

    def on_clean(self, arm: str) -> Comparison | None:
        """Return the comparison with doing nothing on clean images."""
        return self.findings.comparison(arm, self.nothing or "", Metric(CLEAN))

    def loss(self, arm: str) -> CleanLoss:
        """Judge an arm's loss of clean accuracy."""
        clean = self.on_clean(arm)
        if self.clean_loss is None or (clean is not None and clean.low >= -self.clean_loss):
            return "accepted"
        return "refused" if clean is not None and clean.high < -self.clean_loss else "unclear"

    def _comparisons(self, arm: str) -> list[Comparison]:
        tests = [self.findings.comparison(arm, self.nothing or "", metric) for metric in self.metrics]
        return [test for test in tests if test is not None]


def baselines(trial: Trial, measured: Accuracies) -> list[str]:
    """List the arms that others have to beat: doing nothing, and adversarial training without pretext task."""
    arms = [with_results(arm, measured) for arm in (trial.plan.untrained_arm, trial.plan.plain_arm)]
    return [arm for arm in arms if arm is not None]


def judged(
    measured: Accuracies, evidence: Evidence, ranked: Sequence[str], reason: Callable[[Evidence, Sequence[str]], str]
) -> tuple[Verdict, str, tuple[str, ...]]:
    """Return the verdict, its reason, and the arms to go on with.

    Args:
        measured: accuracies of the arms.
        evidence: comparisons and criteria.
        ranked: all arms but the one that does nothing, the most promising first.
        reason: to go on with some arms, in words.
    """
    seeds = len(measured.seeds)
    if seeds < FEWEST_SEEDS:
        few = (
            f"All arms share {seeds} seed{'s' * (seeds > 1)}, and at least {FEWEST_SEEDS} are needed to see how much a result "
            "changes from one training to the next."
        )
        return Verdict.NOT_ENOUGH, few, tuple(ranked)
    if evidence.nothing is None or not evidence.metrics:
        missing = (
            "no arm that does nothing" if evidence.nothing is None else "no accuracy on what matters for the decision"
        )
        return Verdict.NOT_ENOUGH, f"There is {missing}, so it is not known whether hardening pays.", tuple(ranked)
    if not evidence.findings.comparisons:
        return Verdict.NOT_ENOUGH, "The trial has not reached its first look.", tuple(ranked)
    return _by_gains(evidence, ranked, reason)


def _by_gains(
    evidence: Evidence, ranked: Sequence[str], reason: Callable[[Evidence, Sequence[str]], str]
) -> tuple[Verdict, str, tuple[str, ...]]:
    """Judge by the gains over doing nothing and the losses of clean accuracy."""
    gaining = [arm for arm in ranked if evidence.gains(arm)]
    accepted = tuple(arm for arm in gaining if evidence.loss(arm) == "accepted")
    if accepted:
        return Verdict.GO_ON, reason(evidence, accepted), accepted
    unclear = tuple(arm for arm in gaining if evidence.loss(arm) == "unclear")
    if unclear:
        words = (
            f"{listed(unclear)} gained more than chance, but it is not known yet whether clean accuracy falls by more than "
            f"the {points(evidence.clean_loss)} that are accepted."
        )
        return Verdict.NOT_ENOUGH, words, unclear
    possible = tuple(arm for arm in ranked if evidence.loss(arm) != "refused" and evidence.may_gain(arm))
    if possible:
        words = (
            f"No arm gained {points(evidence.worthwhile)} or more over doing nothing by more than chance, but such a gain "
            f"is not ruled out for {listed(possible)}."
        )
        return Verdict.NOT_ENOUGH, words, possible
    return Verdict.DO_NOTHING, _reason_to_do_nothing(evidence, ranked, gaining), ()


def pretext_arms(trial: Trial, measured: Accuracies) -> list[str]:
    """List the arms of adversarial training that have a pretext task in any of their phases."""
    phases = {arm: trial.plan.arms[arm] for arm in measured.arms}
    common = {"preset": EARLIER, **(trial.plan.settings or {})}
    return [
        arm
        for arm, of_arm in phases.items()
        if meets_adversary(of_arm) and any(_has_pretext(phase, common) for phase in of_arm)
    ]


def _has_pretext(phase: Phase, common: Settings) -> bool:
    name, settings = name_and_settings(phase)
    return name == "pretrain" or (name == "harden" and bool(felt(tasks_of({**common, **settings}))))


def with_results(arm: str | None, measured: Accuracies) -> str | None:
    """Return the arm if it has results, else None."""
    return arm if arm in measured.arms else None


def ranked_arms(trial: Trial, measured: Accuracies, findings: Findings, metrics: Sequence[Metric]) -> tuple[str, ...]:
    """Sort all arms but the one that does nothing, the most promising first.

    The key is the number of metrics on which an arm is significantly better than adversarial training without pretext
    task (or, without that arm, than doing nothing), minus those on which it is worse; among equals, the cheapest first.
    """
    nothing = with_results(trial.plan.untrained_arm, measured)
    baseline = with_results(trial.plan.plain_arm, measured) or nothing
    tests = [test for test in findings.comparisons if test.baseline == baseline and test.metric in metrics]
    real = [test for test in tests if test.real]
    net = {arm: sum(1 if test.value > 0 else -1 for test in real if test.arm == arm) for arm in measured.arms}
    seconds = dict(zip(measured.arms, measured.seconds.mean(axis=1).tolist(), strict=True))
    return tuple(sorted((arm for arm in measured.arms if arm != nothing), key=lambda arm: (-net[arm], seconds[arm])))


def reason_to_go_on(evidence: Evidence, arms: Sequence[str]) -> str:
    """State what the first of the arms gained."""
    arm = arms[0]
    gains = sorted(evidence.gains(arm), key=lambda test: -test.value)
    best, clean = gains[0], evidence.on_clean(arm)
    loss = "" if clean is None else f" On clean images the difference is {difference(clean)}."
    return (
        f"In this trial {arm} was better than doing nothing for {len(gains)} of {len(evidence.metrics)} needs, by more than "
        f"chance; most on {best.metric}: {difference(best)}.{loss} A longer run on other images may give another result."
    )


def _reason_to_do_nothing(evidence: Evidence, ranked: Sequence[str], gaining: Sequence[str]) -> str:
    if gaining:
        return (
            f"{listed(gaining)} gained more than chance, but every such arm loses more than the "
            f"{points(evidence.clean_loss)} of clean accuracy that are accepted."
        )
    return (
        f"None of {listed(ranked)} gained over doing nothing, and a gain of {points(evidence.worthwhile)} or more on what "
        "was measured is ruled out for each of them."
    )


def difference(comparison: Comparison) -> str:
    """Format a difference in points, with its interval and its significance."""
    kind = "real" if comparison.real else "noise"
    return f"{100 * comparison.value:+.1f} points ({100 * comparison.low:+.1f} to {100 * comparison.high:+.1f}), {kind}"


def accepted_loss(decision: Decision) -> str:
    """State which loss of clean accuracy is accepted."""
    if decision.clean_loss is None:
        return "no limit was set on how much accuracy on unchanged images may fall"
    return f"up to {points(decision.clean_loss)} of loss on unchanged images are accepted"


def points(share: float | None) -> str:
    """Format a share of images as points of accuracy."""
    return f"{100 * (share or 0):.3g} points"


def listed(names: Sequence[str]) -> str:
    """Join names with commas and "and"."""
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)
