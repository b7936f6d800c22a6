"""The verdict in one line, and what it rests on."""

from collections.abc import Mapping
from pathlib import Path

from robusttune.measuring import headline_words as words
from robusttune.measuring.headline import Headline, headlines
from robusttune.measuring.sections import ANSWERED, Records, caveat, named, percent
from robusttune.measuring.setting_words import chosen_by, data_of, model_of, trained_by

__all__ = ["verdict"]


def verdict(runs: Mapping[str, Records], folder: Path) -> str:
    """Write for each model, against the first, accuracy under attack before and after and its price; then how sure that is."""
    parts = [
        _text_of(headline, _models(headline, runs), _worst_classes(headline, runs)) for headline in headlines(runs)
    ]
    seen = [f"{words.quoted(name)}: {chosen_by(each)}" for name, each in runs.items() if chosen_by(each)]
    notes = [*seen, *_corrupted(runs), *dict.fromkeys(text for each in runs.values() if (text := caveat(each.facts)))]
    return "\n\n".join([*parts, *notes])


def _models(headline: Headline, runs: Mapping[str, Records]) -> str:
    """Name the models, what trained them, and the data; "" if the Records know nothing of them."""
    named = {name: runs[name] for name in (headline.first, headline.second) if name is not None}
    said = [
        f"{words.quoted(name)} is {model_of(records)}, {f'trained by {short}' if (short := trained_by(records)) else 'its training is not known'}"
        for name, records in named.items()
        if model_of(records)
    ]
    data = list(dict.fromkeys(known for records in named.values() if (known := data_of(records))))
    said += [f"measured on {' and '.join(data)}"] if data else []
    return f"{'; '.join(said)}." if said else "Which models these are is not known."


def _worst_classes(headline: Headline, runs: Mapping[str, Records]) -> str:
    """Name the class that each model is right on least often, as a mean may hide a class that was lost; "" if it is not known."""
    named_runs = {name: runs[name] for name in (headline.second, headline.first) if name is not None}
    said = [
        f"{words.quoted(name)} {percent(record.value)} of the {record.images:,} images of {words.quoted(named(record.setting['class'], records.classes))} "
        f"({words.interval_in_words(record.interval)})"
        for name, records in named_runs.items()
        for record in records.where("clean")
        if "class" in record.setting
    ]
    return f"Right least often on unchanged images: {'; '.join(said)}." if said else ""


def _text_of(headline: Headline, models: str, classes: str) -> str:
    doubt = " and ".join(
        f"{words.quoted(name)} fails {count} of the sanity checks" for name, count in headline.failed.items()
    )
    first = f"**{words.verdict(headline)}**"
    if doubt:
        first += f" **Do not rely on this before it is cleared up: {doubt}.**"
    if basis := words.basis(headline):
        first += f" {basis}"
    points = [("Models", models), ("How sure", words.certainty(headline))]
    if headline.judged is not None:
        threat = f"The attacker knows the model, and may change every pixel a little. {words.meaning(headline.judged.adversary)}"
        points = [
            points[0],
            ("Threat", f"{threat} {headline.judged.why}"),
            ("Attack", words.strength(headline)),
            *points[1:],
            ("Expected robustness", words.expectation(headline)),
        ]
    points += [("Worst class", classes)] if classes else []
    return "\n".join([first, "", *(f"- **{name}**: {text}" for name, text in points)])


def _corrupted(runs: Mapping[str, Records]) -> list[str]:
    """State the accuracy on corrupted images, if it was measured, with its protocol if there are several."""
    found = [
        (name, record)
        for name, records in runs.items()
        for record in records.where("corruptions", over="all")
        if record.metric in ANSWERED
    ]
    several = len({record.setting["protocol"] for _, record in found}) > 1
    shares = [
        f"{words.quoted(name)} {percent(record.value)} ({words.interval_in_words(record.interval)}"
        f"{'; ' + record.setting['protocol'] if several else ''}{'; the training has seen some of them' if 'in training' in record.setting else ''})"
        for name, record in found
    ]
    return [f"On images with natural corruptions: {', '.join(shares)}."] if shares else []
