"""Go on, do nothing, or not enough data: what follows from a trial's findings."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from robusttune.trial.decision.criteria import CLEAN
from robusttune.trial.decision.findings import Claim, Findings
from robusttune.trial.decision.metrics import Measured, Need
from robusttune.trial.decision.next_stage import Stage
from robusttune.trial.decision.significance import FEWEST_SEEDS
from robusttune.trial.plan import name_and_settings
from robusttune.trial.results import Trial


class Verdict(str, Enum):
    """What a trial can come to."""

    GO_ON = "go on"
    DO_NOTHING = "do nothing"
    NOT_ENOUGH = "not enough data to tell"


@dataclass(frozen=True)
class Decision:
    """What a trial came to.

    Attributes:
        verdict: one of three.
        reason: why, in a few sentences.
        candidates: the arms to go on with, the most promising first; none where that is to do nothing.
        trial, measured, findings: what it rests on.
        worthwhile: the smallest gain of accuracy that is worth it, a share.
        clean_loss: the largest loss of clean accuracy that is accepted; None for any.
        next: the next stage; None where there is none.
    """

    verdict: Verdict
    reason: str
    candidates: tuple[str, ...]
    trial: Trial
    measured: Measured
    findings: Findings
    worthwhile: float
    clean_loss: float | None
    next: Stage | None = None

    @property
    def nothing(self) -> str | None:
        """The arm that does nothing, where there are results of it."""
        return _there(self.trial.plan.untrained_arm, self.measured)

    @property
    def plain(self) -> str | None:
        """The arm of adversarial training without pretext task, where there are results of it."""
        return _there(self.trial.plan.plain_arm, self.measured)


def baselines(trial: Trial, measured: Measured) -> list[str]:
    """The arms that others have to beat: doing nothing, and adversarial training without pretext task."""
    found = [_there(trial.plan.untrained_arm, measured), _there(trial.plan.plain_arm, measured)]
    return [each for each in found if each is not None]


def judged(
    trial: Trial,
    measured: Measured,
    findings: Findings,
    *,
    worthwhile: float,
    clean_loss: float | None,
    matters: Sequence[str],
) -> tuple[Verdict, str, tuple[str, ...]]:
    """The verdict, its reason, and the arms to go on with."""
    nothing, seeds = _there(trial.plan.untrained_arm, measured), len(measured.seeds)
    needs = [need for need in measured.needs if need.kind in matters]
    every = _ranked(trial, measured, findings, needs)
    if seeds < FEWEST_SEEDS:
        return (
            Verdict.NOT_ENOUGH,
            f"All arms share {seeds} seed{'s' * (seeds > 1)}, and at least {FEWEST_SEEDS} are needed to see how much a result "
            "changes from one training to the next.",
            every,
        )
    if nothing is None or not needs:
        lacking = (
            "no arm that does nothing" if nothing is None else f"no accuracy on what matters ({', '.join(matters)})"
        )
        return Verdict.NOT_ENOUGH, f"There is {lacking}, so whether hardening pays cannot be told.", every
    gaining = [arm for arm in every if _gains(findings, arm, nothing, needs, worthwhile)]
    price = {arm: _price(findings, arm, nothing, clean_loss) for arm in every}
    fine = tuple(arm for arm in gaining if price[arm] == "accepted")
    if fine:
        return Verdict.GO_ON, _said_gain(findings, fine[0], nothing, needs, worthwhile), fine
    open_ones = tuple(arm for arm in gaining if price[arm] == "unclear")
    if open_ones:
        return (
            Verdict.NOT_ENOUGH,
            f"{_listed(open_ones)} gained more than chance, but whether clean accuracy falls by more than the "
            f"{_points(clean_loss)} that are accepted cannot be told yet.",
            open_ones,
        )
    possible = tuple(
        arm for arm in every if price[arm] != "refused" and _possible(findings, arm, nothing, needs, worthwhile)
    )
    if possible:
        return (
            Verdict.NOT_ENOUGH,
            f"No arm gained {_points(worthwhile)} or more over doing nothing that chance could not have made, and such a gain "
            f"is not ruled out for {_listed(possible)}.",
            possible,
        )
    return Verdict.DO_NOTHING, _said_nothing(every, gaining, worthwhile, clean_loss), ()


def pretext_arms(trial: Trial, measured: Measured) -> list[str]:
    """The arms of adversarial training that have a pretext task in any of their phases."""
    phases = {arm: trial.plan.arms[arm] for arm in measured.arms}
    return [arm for arm, each in phases.items() if _is_adversarial(each) and any(map(_has_pretext, each))]


def _has_pretext(phase: Any) -> bool:
    name, settings = name_and_settings(phase)
    return name == "pretrain" or (name == "harden" and bool(settings.get("tasks", "auto")))


def _is_adversarial(phases: Sequence[Any]) -> bool:
    return any(name == "harden" and settings.get("eps") != 0 for name, settings in map(name_and_settings, phases))


def _there(arm: str | None, measured: Measured) -> str | None:
    return arm if arm in measured.arms else None


def _ranked(trial: Trial, measured: Measured, findings: Findings, needs: Sequence[Need]) -> tuple[str, ...]:
    """All arms but the one that does nothing, the most promising first.

    By the number of needs for which an arm is better by more than chance than adversarial training without pretext task
    (or, without that, than doing nothing), less those for which it is worse; among equals the cheapest.
    """
    nothing, plain = _there(trial.plan.untrained_arm, measured), _there(trial.plan.plain_arm, measured)
    own = [each for each in findings.claims if each.baseline == (plain or nothing) and each.real and each.need in needs]
    net = {arm: sum(1 if each.value > 0 else -1 for each in own if each.arm == arm) for arm in measured.arms}
    seconds = dict(zip(measured.arms, measured.seconds.mean(axis=1).tolist(), strict=True))
    return tuple(sorted((arm for arm in measured.arms if arm != nothing), key=lambda arm: (-net[arm], seconds[arm])))


def _beside(findings: Findings, arm: str, nothing: str, needs: Sequence[Need]) -> list[Claim]:
    found = [findings.claim(arm, nothing, need) for need in needs]
    return [each for each in found if each is not None]


def _gains(findings: Findings, arm: str, nothing: str, needs: Sequence[Need], worthwhile: float) -> list[Claim]:
    """The needs for which an arm is better than doing nothing, by more than chance and by enough."""
    return [each for each in _beside(findings, arm, nothing, needs) if each.real and each.value >= worthwhile]


def _possible(findings: Findings, arm: str, nothing: str, needs: Sequence[Need], worthwhile: float) -> bool:
    return any(each.high >= worthwhile for each in _beside(findings, arm, nothing, needs))


def _price(findings: Findings, arm: str, nothing: str, clean_loss: float | None) -> str:
    """Whether what an arm loses on clean images is accepted, refused, or unclear."""
    claim = findings.claim(arm, nothing, Need(CLEAN))
    if clean_loss is None or (claim is not None and claim.low >= -clean_loss):
        return "accepted"
    return "refused" if claim is not None and claim.high < -clean_loss else "unclear"


def _said_gain(findings: Findings, arm: str, nothing: str, needs: Sequence[Need], worthwhile: float) -> str:
    gains = sorted(_gains(findings, arm, nothing, needs, worthwhile), key=lambda each: -each.value)
    best = gains[0]
    clean = findings.claim(arm, nothing, Need(CLEAN))
    price = ""
    if clean is not None:
        price = f" On clean images the difference is {difference(clean)}."
    return (
        f"In this trial {arm} was better than doing nothing for {len(gains)} of {len(needs)} needs, by more than chance; "
        f"most on {best.need}: {difference(best)}.{price} A longer run on other images may come to something else."
    )


def _said_nothing(every: Sequence[str], gaining: Sequence[str], worthwhile: float, clean_loss: float | None) -> str:
    if gaining:
        return (
            f"{_listed(gaining)} gained more than chance, but every such arm loses more than the {_points(clean_loss)} of clean "
            "accuracy that are accepted."
        )
    return (
        f"None of {_listed(every)} gained over doing nothing, and a gain of {_points(worthwhile)} or more on what was measured "
        "is ruled out for each of them."
    )


def difference(claim: Claim) -> str:
    """A difference in points, its interval, and whether it is more than chance."""
    kind = "real" if claim.real else "noise"
    return f"{100 * claim.value:+.1f} points ({100 * claim.low:+.1f} to {100 * claim.high:+.1f}), {kind}"


def _points(share: float | None) -> str:
    return f"{100 * (share or 0):.3g} points"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)
