"""Limits of a measurement, in words: threats, norms, attacks and kinds of images that Records say nothing about."""

from collections.abc import Iterator, Mapping

from robusttune import plugins
from robusttune.measuring.attacked import attacks_in
from robusttune.measuring.records import Records
from robusttune.run.settings import shown_radius

NOT_PIXELS = (
    "Adversaries that do more than change pixels a little: patches and stickers, turning and shifting, other objects in the "
    "picture, poisoned training data, theft of the model."
)
PRIVACY = "Privacy: whether the model gives away the images that it was trained on."


def not_measured(runs: Mapping[str, Records]) -> list[str]:
    """List what the Records say nothing about, as sentences; an evaluation counts as missing unless all models have it."""
    return [*_attacks(runs), *_others(runs), NOT_PIXELS, PRIVACY]


def _attacks(runs: Mapping[str, Records]) -> Iterator[str]:
    attacked = {name: attacks_in(records) for name, records in runs.items()}
    norms = {name: {str(record.setting["norm"]) for record in records} for name, records in attacked.items()}
    for norm in dict.fromkeys([*plugins.names("norms"), *(norm for known in norms.values() for norm in sorted(known))]):
        lacking = [f"“{name}”" for name in runs if norm not in norms[name]]
        if lacking:
            of = f", of {' and '.join(lacking)}" if len(lacking) < len(runs) else ""
            yield f"Attacks in the norm {norm}{of}."
        else:
            radii = [
                max(each.setting["eps"] for each in part if str(each.setting["norm"]) == norm)
                for part in attacked.values()
            ]
            yield f"Attacks of {norm} beyond {shown_radius(min(radii))}."
    if not {"strong", "autoattack"} & _evaluations(runs):
        yield "Attacks stronger than those of `sweep`, such as `strong` and `autoattack`."


def _others(runs: Mapping[str, Records]) -> Iterator[str]:
    texts = {
        "sanity": "Signs that robustness is only apparent, such as masked gradients (`sanity`)",
        "corruptions": "Changes that happen by themselves, such as noise, blur and compression (`corruptions`)",
        "certified": "Proofs: attacks that fail prove nothing (`certified` proves, in l2, for a smoothed model)",
    }
    for evaluation, text in texts.items():
        lacking = [f"“{name}”" for name, records in runs.items() if not records.where(evaluation)]
        if lacking:
            of = f", of {' and '.join(lacking)}" if len(lacking) < len(runs) else ""
            yield f"{text}{of}."
    yield "Images from elsewhere: other cameras, sites, seasons and groups of people may give other numbers."


def _evaluations(runs: Mapping[str, Records]) -> set[str]:
    """Return the names of the evaluations that all models have."""
    done = [{record.evaluation for record in records} for records in runs.values()]
    return set.intersection(*done) if done else set()
