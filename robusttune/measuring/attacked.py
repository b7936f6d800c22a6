"""Accuracy under attack, selected out of Records: the radius to judge at, the attacks there, and their worst case."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from robusttune.measuring.record import ANSWERED, Record, accuracy, repeated
from robusttune.measuring.records import Records
from robusttune.run.settings import number, shown_radius

ATTACKS = ("autoattack", "strong", "sweep")  # evaluations that attack; not `quick`, from which nothing is concluded
ORIGINS = {
    "run": "It is the radius that “{name}” was trained for.",
    "passed": "It is the radius that was passed to `evaluate` as the one to withstand.",
    "customary": "No radius was passed to `evaluate`: it is the customary one for images of this size.",
}


class Adversary(NamedTuple):
    """A norm and a radius."""

    norm: str
    eps: float

    def __str__(self) -> str:
        return f"{self.norm} up to {shown_radius(self.eps)}"

    def fits(self, record: Record) -> bool:
        """Return True if a Record was measured against this adversary; radii are compared to the digits that files of earlier versions hold."""
        setting = record.setting
        return str(setting["norm"]) == self.norm and math.isclose(setting["eps"], self.eps, rel_tol=1e-5)


@dataclass(frozen=True)
class Judged:
    """The adversary at which models are judged.

    Attributes:
        adversary: its norm and radius.
        why: a sentence that says why this one.
        trained: True if it is the one that the models should withstand, by the facts of their Records.
    """

    adversary: Adversary
    why: str
    trained: bool


def attacks_in(records: Iterable[Record]) -> list[Record]:
    """Select the accuracies under attack at radii above 0."""
    return [
        record
        for record in records
        if record.evaluation in ATTACKS
        and record.metric in ANSWERED
        and {"norm", "eps"} <= record.setting.keys()
        and record.setting["eps"] > 0
    ]


def clean_of(records: Records) -> Record | None:
    """Find the accuracy on unchanged images: of `clean`, else of `sweep` at radius 0; None if there is none."""
    plain = [*records.where("clean"), *records.where("sweep", eps=0.0)]
    return next((record for record in plain if record.metric in ANSWERED), None)


def judged_at(runs: Mapping[str, Records]) -> Judged | None:
    """Choose the adversary to judge models at; None if none of them was attacked.

    It is the one that the last model should withstand, by its facts, or else the one of a model before it. Where none was
    measured, it is the nearest radius of the same norm; where none is known, the smallest radius of the norm measured first.
    """
    measured = _common([[_adversary_of(record) for record in attacks_in(records)] for records in runs.values()])
    if not measured:
        return None
    known = [(name, adversary) for name, records in runs.items() if (adversary := trained_against(records))]
    for name, adversary in reversed(known):
        found = next((each for each in measured if _same(each, adversary)), None)
        if found is not None:
            origin = ORIGINS.get(
                str(runs[name].facts.get("eps from")), "It is the radius to withstand, by the Records."
            )
            return Judged(found, origin.format(name=name) + _others(known, adversary), trained=True)
    if known:
        name, adversary = known[-1]
        same_norm = [each for each in measured if each.norm == adversary.norm] or measured
        nearest = min(same_norm, key=lambda each: abs(each.eps - adversary.eps))
        why = f"“{name}” should withstand {adversary}, which was not measured: {nearest} is the nearest that was."
        return Judged(nearest, why, trained=False)
    smallest = min((each for each in measured if each.norm == measured[0].norm), key=lambda each: each.eps)
    why = (
        f"The radius that the model was trained for is not known, as these Records hold no facts: {smallest} is the smallest "
        "radius above 0 that was measured."
    )
    return Judged(smallest, why, trained=False)


def trained_against(records: Records) -> Adversary | None:
    """Return the adversary that a model was, or should be, trained against, by the facts of its Records; None if not known."""
    facts = records.facts
    norm, eps = facts.get("norm"), facts.get("eps")
    if norm is None or eps is None:  # files of earlier versions have a text alone
        norm, _, eps = str(facts.get("threat", "")).rpartition(" eps ")
    try:
        return Adversary(str(norm), number(str(eps))) if norm else None
    except ValueError:
        return None


def _adversary_of(record: Record) -> Adversary:
    return Adversary(str(record.setting["norm"]), record.setting["eps"])


def _same(first: Adversary, second: Adversary) -> bool:
    return first.norm == second.norm and math.isclose(first.eps, second.eps, rel_tol=1e-5)


def _common(measured: Sequence[Sequence[Adversary]]) -> list[Adversary]:
    """Return the adversaries that all models have met; those of any model where there are none; each once, in order."""
    every = [each for one in measured for each in one]
    shared = [each for each in every if all(any(_same(each, other) for other in one) for one in measured)]
    return list(dict.fromkeys(shared or every))


def _others(known: Sequence[tuple[str, Adversary]], chosen: Adversary) -> str:
    """Say which models should withstand another adversary."""
    others = [f"“{name}” should withstand {each}" for name, each in known if not _same(each, chosen)]
    return f" But {', and '.join(others)}." if others else ""


def worst_of(records: Sequence[Record]) -> Record | None:
    """Return the accuracy where an image counts as right only if it withstands all attacks; the lowest one where answers to single images are not known."""
    rights = [record.right for record in records if record.right is not None]
    if not records:
        return None
    if len(rights) < len(records):
        return min(records, key=lambda record: record.value)
    right = tuple(map(all, zip(*rights, strict=True)))
    return accuracy("worst case", sum(right), len(right), {}, metric=records[0].metric, right=right)


def radii_up_to(records: Records, adversary: Adversary) -> list[float]:
    """Return the radii of an adversary's norm, up to its own, at which answers to single images are known."""
    known = {
        record.setting["eps"]
        for record in attacks_in(records)
        if record.right is not None and record.setting["norm"] == adversary.norm
    }
    return sorted(eps for eps in known if eps <= adversary.eps * (1 + 1e-5))


def expected_robustness(records: Records, adversary: Adversary, among: Sequence[float] | None = None) -> Record | None:
    """Return the mean accuracy over radii from 0 to that of an adversary: the area below the curve, divided by the radius.

    The area is that of the trapezoids between the radii that were measured, of which 0 and the radius itself must be two. An
    image counts as right at a radius if no attack up to it changes its class. Its own part of the area is a score from 0 to
    1; the 95% interval is Wilson's for the number of independent trials that would vary as much as these scores do.

    Args:
        records: the Records of a model.
        adversary: up to whose radius.
        among: radii that all models were measured at, so that they can be compared; None for all of this one's.

    Returns:
        The Record, whose setting holds the norm, the radius as eps, and the number of radii above 0 as "radii"; None if a radius
        or the answers to single images are missing.
    """
    clean = clean_of(records)
    by_radius: dict[float, list[Record]] = {}
    for record in attacks_in(records):
        if record.right is not None and record.setting["norm"] == adversary.norm:
            by_radius.setdefault(record.setting["eps"], []).append(record)
    radii = [
        eps
        for eps in radii_up_to(records, adversary)
        if among is None or any(math.isclose(eps, each, rel_tol=1e-5) for each in among)
    ]
    if clean is None or clean.right is None or not radii or not math.isclose(radii[-1], adversary.eps, rel_tol=1e-5):
        return None
    weights = _trapezoids(radii)
    alive, scores = clean.right, [weights[0] * answer for answer in clean.right]
    for eps, weight in zip(radii, weights[1:], strict=True):
        rights = [record.right for record in by_radius[eps] if record.right is not None]
        alive = tuple(map(all, zip(alive, *rights, strict=True)))
        scores = [score + weight * answer for score, answer in zip(scores, alive, strict=True)]
    versions = 1 / math.fsum(
        weight**2 for weight in weights
    )  # as many of equal weight are as good as these radii at best
    sums = (versions * math.fsum(scores), versions**2 * math.fsum(score**2 for score in scores), len(scores))
    setting = {"norm": adversary.norm, "eps": adversary.eps, "radii": len(radii)}
    mean = repeated("expected robustness", sums, versions, setting)
    return Record(mean.evaluation, f"mean {clean.metric}", mean.value, mean.images, mean.interval, mean.setting)


def _trapezoids(radii: Sequence[float]) -> list[float]:
    """Return the weights of 0 and of growing radii in the mean by the trapezoid rule.

    Example:
        >>> _trapezoids([1, 4])
        [0.125, 0.5, 0.375]
    """
    widths = [0.0, *(above - below for below, above in pairwise([0.0, *radii])), 0.0]
    return [(below + above) / 2 / radii[-1] for below, above in pairwise(widths)]
