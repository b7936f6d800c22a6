"""Gate for pipelines: requirements on what was measured, such as robust>=0.45, checked against Records."""

import math
from collections.abc import Mapping, Sequence

from robusttune.measuring.agreement import FACT
from robusttune.measuring.checks import Check, Checks, Verdict
from robusttune.measuring.record import AGREEMENT, ANSWERED, Record
from robusttune.measuring.records import Records
from robusttune.measuring.requirements import METRICS, ROBUST, Requirement, requirements_of
from robusttune.run.settings import shown_radius
from robusttune.threat import ThreatModel

# Evaluations that say nothing about an attack: `quick` is a first look, noise is no adversary, and `export` is of two models.
NO_ATTACK = ("clean", "quick", "noise", "corruptions", "certified", "sanity", "pretext", "ood", "export")
ROUNDING = 1e-12
NAMED_BY = ("run", "passed")  # among the facts of Records, "eps from"; otherwise nobody has named the radius


def checks_of(records: Records, *requirements: str) -> Checks:
    """Check requirements on what was measured; unlike `Records.require`, return those that are not met, too.

    Args:
        records: the Records that `evaluate` returned, or `Records.load` has read.
        requirements: such as "robust>=0.45"; see `Records.require`.

    Raises:
        ValueError: a requirement cannot be read, or what it is about was not measured.
    """
    wanted = requirements_of(requirements)
    check_labelled(records)
    return Checks(_check(records, requirement) for requirement in wanted)


def check_labelled(records: Records) -> None:
    """Raise a ValueError for Records of images without labels, whose agreement is no accuracy."""
    if records.facts.get(FACT) is not None or any(record.metric == AGREEMENT for record in records):
        raise ValueError(
            "requirements are of accuracy, but these images have no labels, and what was measured is agreement with a model's "
            "answers, which may be wrong: evaluate on images with labels"
        )


def check_planned(
    requirements: Sequence[Requirement],
    planned: Mapping[str, Sequence[ThreatModel] | None],
    trained: ThreatModel | None,
) -> None:
    """Check before a measurement that it will measure what is required.

    Args:
        requirements: to be checked afterwards.
        planned: by the name of each evaluation the adversaries that it attacks with; None if it does not say.
        trained: the adversary of the training; None if nobody has named it.

    Raises:
        ValueError: it will not.
    """
    for requirement in requirements:
        if requirement.metric != ROBUST:
            evaluation, _ = METRICS[requirement.metric]
            if evaluation not in planned:
                raise ValueError(
                    f"{requirement.text!r} needs the evaluation {evaluation}, but which= names {', '.join(planned)}: add "
                    f"{evaluation}"
                )
            continue
        if requirement.norm is None and trained is None:
            raise ValueError(unnamed(requirement))
        named = (requirement.norm, requirement.eps)
        norm, eps = named if trained is None or requirement.norm else (trained.norm, trained.eps)
        attacked = {name: threats for name, threats in planned.items() if name not in NO_ATTACK}
        at = [each for threats in attacked.values() for each in threats or ()]
        if None not in attacked.values() and not any(_same((each.norm, each.eps), norm, eps) for each in at):
            raise ValueError(
                f"{requirement.text!r} is at {_radius(norm, eps)}, but {_attacks_of(planned, at)}: add sweep or strong to which=, "
                "with this norm and eps, or require another radius"
            )


def unnamed(requirement: Requirement) -> str:
    """Return the error text for a requirement or a margin whose radius is not known."""
    end = requirement.text.replace(requirement.metric, "", 1)
    return (
        f"{requirement.text!r} is at the radius of the training, which is not known here: pass norm= and eps=, or write the "
        f"radius, such as '{requirement.metric}@linf:8/255{end}'"
    )


def trained_radius(records: Records) -> str | None:
    """Return the adversary of the training as the facts of Records have it; None if nobody has named it."""
    return records.facts.get("threat") if records.facts.get("eps from") in NAMED_BY else None


def attacks_at(records: Records, requirement: Requirement) -> Records:
    """Select all that was measured at the radius of a requirement; noise and first looks alone do not count as an attack.

    Raises:
        ValueError: nothing was, or the radius is not known.
    """
    trained = trained_radius(records)
    if requirement.norm is None and trained is None:
        raise ValueError(unnamed(requirement))
    attacked = [each for each in records if each.metric in ANSWERED and {"norm", "eps"} <= each.setting.keys()]
    found = [each for each in attacked if _is_at(each, requirement, trained)]
    if all(each.evaluation in NO_ATTACK for each in found):
        here = sorted({_radius_of(each) for each in attacked if each.evaluation not in NO_ATTACK})
        raise ValueError(
            f"{requirement.text!r} is at {requirement.adversary or _named(trained)}, but no attack was measured there"
            f"{' (attacks were at ' + ', '.join(here) + ')' if here else ''}: evaluate with sweep or strong at this radius, or "
            "require another one"
        )
    return Records(found, facts=records.facts, hashes=records.hashes, labels=records.labels)


def worst_case(records: Records, requirement: Requirement) -> tuple[Record, str]:
    """Return the accuracy under the worst of all attacks at the radius of a requirement, and what was measured in words.

    Raises:
        ValueError: no attack was measured there, or its answers to single images are not known.
    """
    found = attacks_at(records, requirement)
    known = [each for each in found if each.right is not None]
    lacking = sorted({each.evaluation for each in found if each.right is None and each.evaluation not in NO_ATTACK})
    if not known or lacking:
        raise ValueError(
            f"{requirement.text!r} needs the answer to each image, which these Records do not hold{_of(lacking)}: pass all that "
            "evaluate returned, or the folder with the files beside records.jsonl; an evaluation of yours returns them as right="
        )
    names = ", ".join(dict.fromkeys(each.evaluation for each in known))
    what = f"accuracy under the worst of {len(known)} attacks ({names}) at {_radius_of(known[0])}"
    return Records(known).worst(), what


def _check(records: Records, requirement: Requirement) -> Check:
    if requirement.metric == ROBUST:
        record, what = worst_case(records, requirement)
    else:
        record, what = _single(records, requirement)
    _check_numbers(record, requirement)
    (low, high), limit = record.interval, requirement.limit
    # A mean of nine times 0.9 may be a little less.
    verdict = Verdict.MET if (low if requirement.low else record.value) >= limit - ROUNDING else Verdict.NOT_MET
    if requirement.low and low < limit - ROUNDING and limit <= high:
        verdict = Verdict.CANNOT_TELL
    shown = f"{what} is {_percent(record.value)} (95% interval {_percent(low)} to {_percent(high)}, {record.images:,} images)"
    wanted = f"{'the lower end of the interval' if requirement.low else 'it'} must be at least {_percent(limit)}"
    says = [f"{requirement.text}: {shown}, and {wanted}"]
    if verdict is Verdict.CANNOT_TELL:
        says.append("the interval holds the limit, so that more images are needed to tell")
    elif not requirement.low and low < limit <= high:
        says.append("the interval holds the limit, so that other images of the same kind may decide otherwise")
    doubts = doubts_of(records) if requirement.metric == ROBUST else []
    if doubts:
        verdict = Verdict.CANNOT_TELL if verdict is Verdict.MET else verdict
        says.append(f"sanity speaks against believing this number: {', '.join(doubts)}")
    return Check(requirement.text, verdict, what, record.value, record.interval, limit, record.images, "; ".join(says))


def _single(records: Records, requirement: Requirement) -> tuple[Record, str]:
    """Find the one Record that a requirement is about, and what was measured in words.

    Raises:
        ValueError: there is none, or there are several with different values.
    """
    evaluation, metric = METRICS[requirement.metric]
    found = [record for record in records.where(evaluation) if record.metric == metric]
    if requirement.metric == "corruptions":
        found = [record for record in found if record.setting.get("over") == "all"]
    if requirement.norm is not None:
        found = [record for record in found if _is_at(record, requirement, None)]
    if not found:
        at = f" at {requirement.adversary}" if requirement.adversary else ""
        raise ValueError(
            f"{requirement.text!r} needs the {metric} of {evaluation}{at}, which was not measured: evaluate with {evaluation}"
        )
    if len({(record.value, record.images) for record in found}) > 1:
        raise ValueError(
            f"{requirement.text!r} is about one number, but {evaluation} was measured {len(found)} times with different settings: "
            "pass the Records of one of them"
        )
    over = "mean over all corruptions" if requirement.metric == "corruptions" else requirement.adversary
    over += ", some of which the training has seen" * ("in training" in found[0].setting)
    partial = found[0].setting.get("classes")
    what = f"{metric} of {evaluation}{', ' * bool(over)}{over}{f', of {partial} classes' if partial else ''}"
    return found[0], what.replace("accuracy of clean", "accuracy on unchanged images")


def _check_numbers(record: Record, requirement: Requirement) -> None:
    """Raise a ValueError for a Record that is not a share of images."""
    numbers = (record.value, *record.interval)
    if not all(math.isfinite(each) and 0 <= each <= 1 for each in numbers) or record.images < 1:
        raise ValueError(
            f"{requirement.text!r} cannot be checked: the measured value is {record.value} with the interval {record.interval} on "
            f"{record.images} images, but a share from 0 to 1 is needed: evaluate again, and look at the model's answers"
        )


def _of(names: Sequence[str]) -> str:
    return f" of {', '.join(names)}" if names else ""


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"  # with one decimal, 44.96% would be shown as a limit of 45% that it does not reach


def doubts_of(records: Records) -> list[str]:
    """Name the sanity checks that failed, which speak against believing an accuracy under attack."""
    return [record.metric for record in records.where("sanity") if record.setting.get("ok") is False]


def _is_at(record: Record, requirement: Requirement, trained: str | None) -> bool:
    norm, eps = record.setting.get("norm"), record.setting.get("eps")
    if norm is None or eps is None:
        return False
    if requirement.norm is None:
        return f"{norm} eps {eps:.6g}" == trained
    return _same((norm, eps), requirement.norm, requirement.eps)


def _same(radius: tuple[object, float], norm: object, eps: float | None) -> bool:
    return radius[0] == norm and eps is not None and math.isclose(radius[1], eps, rel_tol=1e-6)


def _attacks_of(planned: Mapping[str, object], at: Sequence[ThreatModel]) -> str:
    radii = ", ".join(_radius(each.norm, each.eps) for each in at)
    return f"which= attacks at {radii}" if radii else f"which= names {', '.join(planned)}, which do not attack"


def _radius(norm: object, eps: float | None) -> str:
    return f"{norm} eps {shown_radius(eps or 0.0)}"


def _radius_of(record: Record) -> str:
    return _radius(record.setting["norm"], record.setting["eps"])


def _named(trained: str | None) -> str:
    norm, _, eps = (trained or "").partition(" eps ")
    return f"{norm} eps {shown_radius(float(eps))}" if eps else norm
