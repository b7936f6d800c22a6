"""The main results in words, and the limits of what they show."""

from collections.abc import Mapping
from pathlib import Path

from robusttune.measuring.sections import ANSWERED, Record, Records, caveat, percent, reworded, shown_radius, whose

__all__ = ["overview"]

STRENGTH = ("autoattack", "strong", "sweep")  # evaluations of robustness, the strongest first
LIMITS = (
    "An accuracy under attack is an upper bound: a stronger attack may find more. It holds for changes of pixels up to the "
    "radius named, not for other changes, nor for larger ones.",
    "Numbers are of these images: on other images of the same kind they may differ by the intervals, on other kinds by more.",
    "Of two models that differ by less than their intervals, neither can be called better from this; `compare` looks at "
    "the same images.",
)
QUICK = "What `quick` measured on {images} images with one attack is a first look: it is for finding mistakes, not a result."
MADE_HERE = "Corruptions were made in memory: their numbers are not those of published benchmark files."


def overview(runs: Mapping[str, Records], folder: Path) -> str:
    """Write a sentence or two for each model, then what the numbers do not show."""
    caveats = list(dict.fromkeys(text for records in runs.values() if (text := caveat(records.facts)) is not None))
    question = "does the model's answer agree with the one for the image as it is" if caveats else "is the model right"
    lines = [f"How often {question}, on images as they are, and on images that were changed to mislead it?", ""]
    lines += [f"- **{name}** {text}" for name, records in runs.items() if (text := _sentence(records))]
    everything = [record for records in runs.values() for record in records]
    limits = [*caveats, *(map(reworded, LIMITS) if caveats else LIMITS)]
    if any(str(record.setting.get("protocol", "")).startswith("made here") for record in everything):
        limits.append(MADE_HERE)
    quick = [record for record in everything if record.evaluation == "quick"]
    if quick:
        limits.append(QUICK.format(images=quick[0].images))
    return "\n".join([*lines, "", "What not to conclude:", "", *(f"- {limit}" for limit in limits)])


def _sentence(records: Records) -> str:
    answers = whose(records.facts)
    verb = "is right" if answers is None else f"agrees with {answers}"
    parts = [f"{verb} on {_share(record)} of images as they are" for record in _clean(records)]
    parts += [_robust(record) for record in _strongest(records)]
    parts += [
        f"{_share(record)} of corrupted ones"
        for record in records.where("corruptions", over="all")
        if record.metric in ANSWERED
    ]
    failed = [record for record in records.where("sanity") if not record.setting["ok"]]
    end = f". **{len(failed)} checks speak against believing this**" if failed else ""
    return (", ".join(parts) + end + ".") if parts else ""


def _clean(records: Records) -> list[Record]:
    return [record for record in records.where("clean") if record.metric in ANSWERED]


def _strongest(records: Records) -> list[Record]:
    """Find for each norm the accuracy by the strongest evaluation, at the training radius, or at its last if unknown."""
    threat = str(records.facts.get("threat", ""))
    strongest: dict[str, Record] = {}
    for evaluation in STRENGTH:
        for record in records.where(evaluation):
            norm, eps = record.setting["norm"], record.setting["eps"]
            trained = threat == f"{norm} eps {eps:.6g}"
            if eps > 0 and (trained or not threat) and strongest.get(norm, record).evaluation == evaluation:
                strongest[norm] = record
    return list(strongest.values())


def _robust(record: Record) -> str:
    setting = record.setting
    return f"on {_share(record)} under attack ({setting['norm']} up to {shown_radius(setting['eps'])}, by {record.evaluation})"


def _share(record: Record) -> str:
    low, high = record.interval
    return f"{percent(record.value)} ({100 * low:.1f}–{100 * high:.1f})"
