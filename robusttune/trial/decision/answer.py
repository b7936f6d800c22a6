"""Answer of a trial with looks: which arm to take for the needs that it names."""

from collections.abc import Sequence
from dataclasses import dataclass

from robusttune.trial.decision.findings import Comparison, Findings
from robusttune.trial.decision.metrics import Metric
from robusttune.trial.decision.verdict import Evidence, difference, listed, points


@dataclass(frozen=True)
class Rivals:
    """The arms beside the plain one, as they compare with it.

    Attributes:
        findings: significance tests.
        plain: the arm that they are compared with.
        needs: metrics that the trial must answer.
        worthwhile: the smallest gain that counts, a share.
    """

    findings: Findings
    plain: str
    needs: Sequence[Metric]
    worthwhile: float

    def tests(self, arm: str) -> list[Comparison]:
        """Return the comparisons of an arm with the plain one, the largest gain first."""
        found = [self.findings.comparison(arm, self.plain, need) for need in self.needs]
        return sorted((test for test in found if test is not None), key=lambda test: -test.value)

    def better(self, arm: str) -> bool:
        """Return True if the arm is better on a need, and worse on none, by more than chance."""
        real = [test.value > 0 for test in self.tests(arm) if test.real]
        return bool(real) and all(real)

    def mixed(self, arm: str) -> bool:
        """Return True if the arm is better on a need, and worse on another, by more than chance."""
        return {test.value > 0 for test in self.tests(arm) if test.real} == {True, False}

    def is_open(self, arm: str) -> bool:
        """Return True if a worthwhile gain is neither shown nor ruled out."""
        return not self.better(arm) and any(test.high >= self.worthwhile and not test.real for test in self.tests(arm))

    def ranked(self, arms: Sequence[str], plain: str | None) -> list[str]:
        """Sort arms: the better ones by their gain, the plain one, those that may be better, the rest."""
        best = sorted(arms, key=lambda arm: -sum(test.value for test in self.tests(arm)))
        better, open_ones = list(filter(self.better, best)), list(filter(self.is_open, best))
        rest = [arm for arm in best if arm not in (*better, *open_ones)]
        return [*better, *([plain] if plain else []), *open_ones, *rest]


def reason_to_take(
    rivals: Rivals, arms: Sequence[str], plain: str | None, evidence: Evidence, taken: Sequence[str]
) -> str:
    """State which arm to take, and what that rests on.

    Args:
        rivals: what the arms beside the plain one are compared with.
        arms: those, by name.
        plain: the plain arm; None without one.
        evidence: comparisons with doing nothing.
        taken: arms that gain over doing nothing, the one to take first.
    """
    arm = taken[0]
    gain = max(evidence.gains(arm), key=lambda test: test.value)
    clean = evidence.on_clean(arm)
    loss = (
        ""
        if clean is None or clean.metric == gain.metric
        else f"; on clean images the difference is {difference(clean)}"
    )
    parts = [f"Take {arm}: it was better than doing nothing, on {gain.metric} by {difference(gain)}{loss}."]
    gains = points(rivals.worthwhile)
    if arm != plain and plain is not None:
        best = rivals.tests(arm)[0]
        known = f"It was better than {plain}, too, on {best.metric} by {difference(best)}."
        other = f"It is not known to be better than {plain}, which gains too little or loses more clean accuracy than is accepted."
        parts.append(known if rivals.better(arm) else other)
    elif arm == plain:
        open_ones = [each for each in arms if rivals.is_open(each)]
        better = [each for each in arms if rivals.better(each)]
        mixed = [each for each in arms if each not in open_ones and rivals.mixed(each)]
        rest = [each for each in arms if each not in (*open_ones, *better, *mixed)]
        if better:
            parts.append(f"{listed(better)} gained more, but loses more clean accuracy than is accepted.")
        if mixed:
            parts.append(f"{listed(mixed)} is better on one need and worse on another.")
        if open_ones:
            parts.append(f"A gain of {gains} or more over it by {listed(open_ones)} is neither shown nor ruled out.")
        if rest:
            parts.append(f"A gain of {gains} or more over it is ruled out for {listed(rest)}.")
    return " ".join([*parts, "A longer run on other images may give another result."])
