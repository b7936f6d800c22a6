"""Fixed texts of the decision page: untested threats, questions for the team, evaluation checklist."""

from collections.abc import Iterator

from robusttune import plugins
from robusttune.corruptions import FAMILIES
from robusttune.measuring.not_measured import NOT_PIXELS
from robusttune.measuring.record import named, percent
from robusttune.run.markdown import as_text, markdown_table
from robusttune.run.settings import shown_radius
from robusttune.trial.decision.criteria import ATTACK, CORRUPTION
from robusttune.trial.decision.verdict import Decision

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
    """List the warnings of sanity checks, with arm and seeds."""
    warnings: dict[tuple[str, str], list[int]] = {}
    for result in decision.trial.results:
        for record in result.records.where("sanity"):
            if not record.setting["ok"]:
                warnings.setdefault((result.arm, record.setting["says"]), []).append(result.seed)
    return [f"{arm} (seeds {', '.join(map(str, seeds))}): {says}" for (arm, says), seeds in warnings.items()]


def not_tested(decision: Decision) -> list[str]:
    """List what the plan leaves out, as sentences."""
    return [*_threats(decision), *_corruptions(decision), *_rest(decision)]


def _threats(decision: Decision) -> Iterator[str]:
    attacks = [metric for metric in decision.metrics if metric.kind == ATTACK]
    norms = dict.fromkeys(metric.norm for metric in attacks)
    missing = [norm for norm in plugins.names("norms") if norm not in norms]
    if missing:
        yield f"Attacks in the norm{'s' * (len(missing) > 1)} {', '.join(missing)}."
    for norm in norms:
        positions = {metric.position for metric in attacks if metric.norm == norm}
        untested = [position for position in ("below", "at", "above") if position not in positions]
        if untested:
            yield f"{norm} attacks {' and '.join(untested)} the plan's radius."
        largest = max(metric.eps for metric in attacks if metric.norm == norm)
        yield f"{norm} attacks beyond {shown_radius(largest)}."
    trained = [norm for norm in norms if any(metric.trained for metric in attacks if metric.norm == norm)]
    if trained:
        yield f"Training against anything but {', '.join(trained)} at the plan's radius."
    if not {"strong", "autoattack"} & _evaluations(decision):
        yield "Attacks stronger than the sweep's (`strong`, `autoattack`)."
    yield NOT_PIXELS


def _corruptions(decision: Decision) -> Iterator[str]:
    measured = {metric.family for metric in decision.metrics if metric.kind == CORRUPTION}
    missing = [family for family in FAMILIES if family not in measured]
    if missing:
        yield f"Corruptions of the famil{'ies' if len(missing) > 1 else 'y'} {', '.join(missing)}."
    seen = sorted(
        {
            f"{result.arm} on {record.setting['corruption']}"
            for result in decision.trial.results
            for record in result.records.where("corruptions", **{"in training": True})
            if "corruption" in record.setting
        }
    )
    if seen:
        yield f"Corruptions that training has not seen, where it has seen them: {', '.join(seen)}."


def _rest(decision: Decision) -> Iterator[str]:
    plan = decision.trial.plan
    yield f"Other backbones than {_backbone(decision)}, and other starting weights."
    count = plan.training_images
    images = "" if count is None else f"More training images than {count:,}. "
    yield f"{images}Longer training than {plan.epochs:g} epochs." if plan.epochs else f"{images}Longer training."
    yield (
        f"Images from elsewhere: the {decision.measured.images} held-out images come from where the training images come from. Other cameras, "
        "sites, seasons and populations may give other numbers, and another order of arms."
    )
    if "ood" not in _evaluations(decision):
        yield "Images of classes that the model does not know."


def _backbone(decision: Decision) -> str:
    name = decision.trial.plan.model
    if isinstance(name, str):
        kind, _, code = name.partition(" ")
        return as_text(f"{kind} (fingerprint {code})" if code else kind)
    names = [result.records.facts.get("model") for result in decision.trial.results]
    return as_text(str(next((name for name in names if name), "this one")))


def questions(decision: Decision) -> list[str]:
    """List questions that people have to answer, as no trial can."""
    attacks = [metric for metric in decision.metrics if metric.kind == ATTACK]
    trained = [metric for metric in attacks if metric.trained and metric.position == "at"]
    radius = str(trained[0]) if trained else "the radius tested"
    return [
        "**Threat**: who can change the images before the model sees them, and what would they gain? Where nobody can, attacks "
        "need not be paid for.",
        f"**Threat**: is {radius} what such a person could change unseen, or does the attacker accept being seen?",
        "**Threat**: does the attacker know the model, or can they ask it often? Can answers be limited or logged?",
        "**Cost of errors**: what does a wrong answer cost under attack, and what on the many images that nobody attacks? How "
        "many points of clean accuracy may hardening cost?",
        "**Data**: were the held-out images kept apart from training images, by patient, site, camera and day? Are labels right?",
        f"**Data**: do rare classes and groups of people fare as well as the mean? {_worst_classes(decision)}",
        "**Data**: which of the corruptions occur in use, how often, and how severe?",
        "**Monitoring**: who notices when images differ from those here, by which measure, and at what rate of false alarms?",
        "**Monitoring**: what happens then: a person looks, an older model answers, or the model abstains?",
        "**Way back**: can the old weights be put back in minutes, and is it recorded which weights gave which answer?",
        "**Again**: after which change of data, model or threat are these measurements repeated?",
    ]


def _worst_classes(decision: Decision) -> str:
    """Name the class with the lowest accuracy of each arm, over all seeds."""
    lowest: dict[str, tuple[float, str]] = {}
    for result in decision.trial.results:
        for record in result.records:
            if record.metric == "worst-class accuracy":
                found = record.value, as_text(named(record.setting["class"], result.records.classes))
                lowest[result.arm] = min(found, lowest.get(result.arm, found))
    worst = (f"{name} in {arm} ({percent(value)})" for arm, (value, name) in lowest.items())
    return f"The worst class is {', '.join(worst)}." if lowest else "See the worst class."


def items(decision: Decision) -> str:
    """Return a table of the standard evaluation items, with those that this trial has."""
    done = _evaluations(decision)
    rows = [[f"`{name}`", text, "yes" if name in done else "**no**"] for name, text in ITEMS.items()]
    table = markdown_table(["item", "what it tells", "in this trial"], rows)
    return f"{table}\n\nBefore production, run those that are missing on the model that is to be used."


def _evaluations(decision: Decision) -> set[str]:
    """Return names of the evaluations that every arm has, with all seeds or with those of the first look."""
    first = decision.trial.plan.first_seeds
    results = [result for result in decision.trial.results if result.seed in first]
    by_result = [{record.evaluation for record in result.records} for result in results]
    return set.intersection(*by_result) if by_result else set()
