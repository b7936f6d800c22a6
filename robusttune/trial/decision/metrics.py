"""What a trial's arms are judged by, and how each of them did."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robusttune.corruptions import FAMILIES
from robusttune.corruptions._benchmark import family_of
from robusttune.measuring.intervals import Z95
from robusttune.measuring.record import Record
from robusttune.measuring.records import Records
from robusttune.trial.decision.criteria import ATTACK, CLEAN, CORRUPTION
from robusttune.trial.decision.significance import Numbers
from robusttune.trial.results import Result, Trial, threat_of

ATTACKS = ("sweep", "strong", "autoattack")
PLACES = ("below", "at", "above")
WIDER = 2.0  # of radii beyond the training radius, the one that is nearest to so many times it


@dataclass(frozen=True)
class Need:
    """One thing that a model may be needed for.

    Attributes:
        kind: "clean", "attack" or "corruption".
        norm, eps, place: of an attack; place is "below", "at" or "above" the radius that the plan names for the norm.
        trained: whether arms train against an attack of this norm.
        family: of corruptions.
    """

    kind: str
    norm: str = ""
    eps: float = 0.0
    place: str = ""
    trained: bool = False
    family: str = ""

    def __str__(self) -> str:
        if self.kind == ATTACK:
            return f"{self.norm} {self.eps:.3g}"
        return self.family if self.kind == CORRUPTION else CLEAN


@dataclass(frozen=True)
class Measured:
    """The accuracies of a trial.

    Attributes:
        arms, seeds, needs: what there is of each, in the plan's order; the seeds are those that all arms have.
        values: accuracies (A, S, N).
        spread: standard errors of them (A, S, N) that come from the number of images.
        right: for each need the share of right answers to each image (A, S, M); None where single images are not known.
        seconds: of training (A, S).
        images: how many there are.
        untrained: the numbers of arms that are one model, whatever the seed.
        left_out: arms without results, and seeds that not all arms have, in words.
    """

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    needs: tuple[Need, ...]
    values: Numbers
    spread: Numbers
    right: tuple[Numbers | None, ...]
    seconds: Numbers
    images: int
    untrained: frozenset[int]
    left_out: tuple[str, ...]


def measured(trial: Trial) -> Measured:
    """What all arms of a trial have in common.

    Raises:
        ValueError: there are fewer than two arms with a seed in common, nothing that all have measured, or other images.
    """
    results = {(each.arm, each.seed): each for each in trial.results}
    arms = [arm for arm in trial.plan["arms"] if any(arm == each for each, _ in results)]
    seeds = [seed for seed in trial.plan["seeds"] if all((arm, seed) in results for arm in arms)]
    if len(arms) < 2 or not seeds:
        raise ValueError(
            f"the trial has results of {len(arms)} arms ({', '.join(arms) or 'none'}) and {len(seeds)} seeds that all of "
            "them share, but two arms with one seed are needed: let it run on"
        )
    used = [results[arm, seed] for arm in arms for seed in seeds]
    _check_images(used)
    needs = _common([needs_of(each.records, trial.plan) for each in used])
    found = [[_answers(each.records, need) for need in needs] for each in used]
    shape = (len(arms), len(seeds), len(needs))
    singles = [[each[column][2] for each in found] for column in range(len(needs))]
    return Measured(
        tuple(arms),
        tuple(seeds),
        tuple(needs),
        np.array([[value for value, _, _ in row] for row in found]).reshape(shape),
        np.array([[spread for _, spread, _ in row] for row in found]).reshape(shape),
        tuple(_stacked(column, shape[:2]) for column in singles),
        np.array([each.seconds for each in used]).reshape(shape[:2]),
        len(used[0].records.hashes) or used[0].records[0].images,
        frozenset(number for number, arm in enumerate(arms) if not trial.plan["arms"][arm]),
        tuple(_left_out(trial, arms, seeds, set(results))),
    )


def needs_of(records: Records, plan: Mapping[str, Any]) -> list[Need]:
    """What the Records of one model tell about: clean images, attacks below, at and above the radius, corruptions."""
    found = [Need(CLEAN)] if _clean(records) is not None else []
    trained = threat_of(plan)
    radii: dict[str, list[float]] = {}
    for record in records:
        if record.evaluation in ATTACKS and record.metric == "accuracy" and record.setting.get("eps", 0) > 0:
            radii.setdefault(record.setting["norm"], []).append(record.setting["eps"])
    for norm, measured in radii.items():
        each = sorted(set(measured))
        radius = float((plan.get("threats") or {}).get(norm, each[(len(each) - 1) // 2]))
        own = trained is not None and trained[0] == norm
        found += [Need(ATTACK, norm, eps, place, own) for place, eps in _placed(each, radius).items()]
    families = {family_of(record.setting["corruption"]) for record in records if "corruption" in record.setting}
    found += [Need(CORRUPTION, family=each) for each in sorted(families, key=_order)]
    return found


def _placed(eps: Sequence[float], radius: float) -> dict[str, float]:
    """Of the radii measured one below the radius, near half of it, the radius, and one above, near twice it."""
    same = [each for each in eps if abs(each - radius) <= 1e-6 * radius]
    below = [each for each in eps if each < radius and each not in same]
    above = [each for each in eps if each > radius and each not in same]
    found = {
        "below": min(below, key=lambda each: abs(each - radius / 2), default=None),
        "at": same[0] if same else None,
        "above": min(above, key=lambda each: abs(each - WIDER * radius), default=None),
    }
    return {place: each for place, each in found.items() if each is not None}


def _answers(records: Records, need: Need) -> tuple[float, float, Numbers | None]:
    """The accuracy, its standard error for the number of images, and the share of right answers to each image (M,)."""
    if need.kind == CLEAN:
        rows = [record for record in [_clean(records)] if record is not None]
    elif need.kind == ATTACK:
        every = records.where(norm=need.norm, eps=need.eps)
        rows = [each for each in every if each.evaluation in ATTACKS and each.metric == "accuracy"]
    else:
        rows = [each for each in records if family_of(each.setting.get("corruption", "")) == need.family]
        rows = [each for each in rows if "severity" in each.setting and each.metric == "accuracy"]
    singles = [np.array(each.right, dtype=float) for each in rows if each.right is not None]
    combined = np.mean if need.kind == CORRUPTION else np.min
    if len(singles) == len(rows):
        shares: Numbers = np.stack(singles)
        each = shares.mean(axis=0) if need.kind == CORRUPTION else shares.min(axis=0)
        return float(each.mean()), float(each.std() / np.sqrt(len(each))), each
    widths = [(high - low) / (2 * Z95) for low, high in (each.interval for each in rows)]
    # Without single images, how far corruptions fail on the same ones is not known: as though on all the same.
    return float(combined([each.value for each in rows])), float(max(widths)), None


def _clean(records: Records) -> Record | None:
    rows = [each for each in records.where("clean") if each.metric == "accuracy"]
    rows += [each for each in records.where("sweep") if each.setting.get("eps") == 0]
    return rows[0] if rows else None


def _check_images(results: Sequence[Result]) -> None:
    first = results[0]
    for each in results:
        if each.records.hashes and first.records.hashes and each.records.hashes != first.records.hashes:
            raise ValueError(
                f"arm {each.arm!r} with seed {each.seed} was measured on other images than arm {first.arm!r} with seed "
                f"{first.seed}: arms can only be compared on the same held-out images"
            )


def _common(each: Sequence[Sequence[Need]]) -> list[Need]:
    found = [need for need in each[0] if all(need in other for other in each)]
    if not found:
        raise ValueError(
            "no accuracy was measured of all arms: let the plan's evaluation items hold 'clean' and 'sweep'"
        )
    return found


def _stacked(singles: Sequence[Numbers | None], shape: tuple[int, ...]) -> Numbers | None:
    known = [each for each in singles if each is not None]
    if len(known) < len(singles) or len({len(each) for each in known}) > 1:
        return None
    return np.stack(known).reshape(*shape, -1)


def _left_out(trial: Trial, arms: Sequence[str], seeds: Sequence[int], there: set[tuple[str, int]]) -> list[str]:
    told = [f"{arm} has no results yet" for arm in trial.plan["arms"] if arm not in arms]
    for seed in (each for each in trial.plan["seeds"] if each not in seeds):
        missing = [arm for arm in arms if (arm, seed) not in there]
        told.append(f"seed {seed} is left out, as {', '.join(missing)} has no results with it yet")
    return told


def _order(family: str) -> int:
    return FAMILIES.index(family) if family in FAMILIES else len(FAMILIES)
