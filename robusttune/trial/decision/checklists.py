"""What a trial leaves open: what was not tested, what to ask before production, and the standard evaluation items."""

from collections.abc import Iterator

from robusttune import plugins
from robusttune.corruptions import FAMILIES
from robusttune.trial.decision.criteria import ATTACK, CORRUPTION
from robusttune.trial.decision.verdict import Decision

NOT_PIXELS = (
    "Adversaries that do more than change pixels a little: patches and stickers, turning and shifting, other objects in the "
    "picture, poisoned training data, theft of the model."
)
ITEMS = {
    "clean": "accuracy on unchanged images, of each class too",
    "sweep": "attacks of growing radius, past the training radius, in both norms",
    "strong": "stronger attacks at the training radius",
    "autoattack": "the standard suite, by which models are compared elsewhere",
    "sanity": "signs that robustness is only apparent",
    "corruptions": "natural corruptions of all families",
    "noise": "random noise, which any attack must beat",
    "certified": "what can be proved, in l2",
    "ood": "whether images of another kind are noticed",
}


def doubts(decision: Decision) -> list[str]:
    """What sanity checks found in any arm."""
    found: dict[tuple[str, str], list[int]] = {}
    for result in decision.trial.results:
        for record in result.records.where("sanity"):
            if not record.setting["ok"]:
                found.setdefault((result.arm, record.setting["says"]), []).append(result.seed)
    return [f"{arm} (seeds {', '.join(map(str, seeds))}): {says}" for (arm, says), seeds in found.items()]


def not_tested(decision: Decision) -> list[str]:
    """What the plan leaves out, as sentences."""
    return [*_threats(decision), *_corruptions(decision), *_rest(decision)]


def _threats(decision: Decision) -> Iterator[str]:
    needs = [need for need in decision.measured.needs if need.kind == ATTACK]
    norms = dict.fromkeys(need.norm for need in needs)
    missing = [norm for norm in plugins.names("norms") if norm not in norms]
    if missing:
        yield f"Attacks in the norm{'s' * (len(missing) > 1)} {', '.join(missing)}."
    for norm in norms:
        places = {need.place for need in needs if need.norm == norm}
        open_ones = [place for place in ("below", "at", "above") if place not in places]
        if open_ones:
            yield f"{norm} attacks {' and '.join(open_ones)} the plan's radius."
        largest = max(need.eps for need in needs if need.norm == norm)
        yield f"{norm} attacks beyond {largest:.3g}."
    trained = [norm for norm in norms if any(need.trained for need in needs if need.norm == norm)]
    if trained:
        yield f"Training against anything but {', '.join(trained)} at the plan's radius."
    if not {"strong", "autoattack"} & _evaluations(decision):
        yield "Attacks stronger than the sweep's (`strong`, `autoattack`)."
    yield NOT_PIXELS


def _corruptions(decision: Decision) -> Iterator[str]:
    measured = {need.family for need in decision.measured.needs if need.kind == CORRUPTION}
    missing = [family for family in FAMILIES if family not in measured]
    if missing:
        yield f"Corruptions of the famil{'ies' if len(missing) > 1 else 'y'} {', '.join(missing)}."
    seen = sorted(
        {
            f"{each.arm} on {record.setting['corruption']}"
            for each in decision.trial.results
            for record in each.records.where("corruptions", **{"in training": True})
            if "corruption" in record.setting
        }
    )
    if seen:
        yield f"Corruptions that training has not seen, where it has seen them: {', '.join(seen)}."


def _rest(decision: Decision) -> Iterator[str]:
    plan, seen = decision.trial.plan, decision.measured
    yield f"Other backbones than {_backbone(decision)}, and other starting weights."
    count = (plan.get("data") or {}).get("training images")
    images = "" if count is None else f"More training images than {count:,}. "
    epochs = plan.get("epochs")
    yield f"{images}Longer training than {epochs:g} epochs." if epochs else f"{images}Longer training."
    yield (
        f"Images from elsewhere: the {seen.images} held-out images come from where the training images come from. Other cameras, "
        "sites, seasons and populations may give other numbers, and another order of arms."
    )
    if "ood" not in _evaluations(decision):
        yield "Images of classes that the model does not know."


def _backbone(decision: Decision) -> str:
    given = decision.trial.plan.get("model")
    if isinstance(given, str):
        return given
    facts = [each.records.facts.get("model") for each in decision.trial.results]
    return str(next((each for each in facts if each), "this one"))


def questions(decision: Decision) -> list[str]:
    """What people have to answer, as no trial can."""
    attacks = [need for need in decision.measured.needs if need.kind == ATTACK and need.trained and need.place == "at"]
    radius = f"{attacks[0].norm} {attacks[0].eps:.3g}" if attacks else "the radius tested"
    return [
        "**Threat**: who can change the images before the model sees them, and what would they gain? Where nobody can, attacks "
        "need not be paid for.",
        f"**Threat**: is {radius} what such a person could change unseen, or does the attacker put up with being seen?",
        "**Threat**: does the attacker know the model, or can they ask it often? Can answers be limited or logged?",
        "**Cost of errors**: what does a wrong answer cost under attack, and what on the many images that nobody attacks? How "
        "many points of clean accuracy may hardening cost?",
        "**Data**: were the held-out images kept apart from training images, by patient, site, camera and day? Are labels right?",
        "**Data**: do rare classes and groups of people fare as well as the mean? See the worst class.",
        "**Data**: which of the corruptions occur in use, how often, and how severe?",
        "**Monitoring**: who notices when images drift from those here, by what measure, and at what rate of false alarms?",
        "**Monitoring**: what happens then: a person looks, an older model answers, or the model abstains?",
        "**Way back**: can the old weights be put back in minutes, and is it recorded which weights gave which answer?",
        "**Again**: after which change of data, model or threat are these measurements repeated?",
    ]


def items(decision: Decision) -> str:
    """A table of the standard items, and which of them this trial has."""
    done = _evaluations(decision)
    lines = ["| item | what it tells | in this trial |", "|---|---|---|"]
    lines += [f"| `{name}` | {what} | {'yes' if name in done else '**no**'} |" for name, what in ITEMS.items()]
    return "\n".join([*lines, "", "Before production, run those that are missing on the model that is to be used."])


def _evaluations(decision: Decision) -> set[str]:
    """What was measured of every arm and seed."""
    each = [{record.evaluation for record in result.records} for result in decision.trial.results]
    return set.intersection(*each) if each else set()
