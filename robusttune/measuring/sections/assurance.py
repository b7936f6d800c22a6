"""A section for auditors: the threat model, what was measured and what was not, and lines to sign; it states no conformity."""

from collections.abc import Mapping
from pathlib import Path

from robusttune.measuring.attacked import judged_at
from robusttune.measuring.headline_words import interval_in_words, meaning
from robusttune.measuring.not_measured import not_measured
from robusttune.measuring.record import is_check
from robusttune.measuring.sections import Record, Records, described, markdown_table, percent
from robusttune.measuring.setting_words import (
    UNKNOWN,
    fingerprint_of,
    images_of,
    model_of,
    overlap_of,
    start_of,
    training_of,
)
from robusttune.measuring.standards import standards

__all__ = ["assurance"]

SIGNED = ("Date", "Name", "Role", "Signature")


def assurance(runs: Mapping[str, Records], folder: Path) -> str:
    """Write the threat model in NIST's terms, measurements, gaps, fingerprints, the EU AI Act's and ISO's words, and lines to sign.

    Dates, numbers of articles and words of these texts are those of `standards.json`. Facts that are not known are said to be
    not known.
    """
    texts = standards()
    parts = {
        "": f"**{texts['no conformity']}**",
        "Threat model": _threat(runs),
        "What was measured": _measured(runs),
        "What was not measured": "\n".join(f"- {each}" for each in not_measured(runs)),
        "Data and model": _fingerprints(runs),
        "EU AI Act": _act(runs),
        "ISO/IEC 24029": _iso(runs),
        "Signature": markdown_table(["", "to be filled in by the responsible person"], [[name, ""] for name in SIGNED]),
        "Sources": "\n".join(_source(text) for text in texts.values() if isinstance(text, dict))
        + f"\n\n{texts['about']}",
    }
    return "\n\n".join(f"### {title}\n\n{text}" if title else text for title, text in parts.items())


def _threat(runs: Mapping[str, Records]) -> str:
    nist, judged = standards()["NIST AI 100-2"], judged_at(runs)
    head = f"In the terms of {nist['title'].partition(',')[0]}:"
    if judged is None:
        return f"{head} {UNKNOWN}, as no attack was measured."
    bound = f"{judged.adversary}. {meaning(judged.adversary)} {judged.why}"
    rows = [*nist["terms"].items(), ("bound of the capability", bound)]
    return f"{head}\n\n{markdown_table(['term', 'here'], rows)}"


def _measured(runs: Mapping[str, Records]) -> str:
    head = ["model", "evaluation", "setting, with attack and seed", "value", "95% interval", "images"]
    rows = [
        [
            name,
            f"{record.evaluation}, {record.metric}",
            _setting(record, records),
            *_value(record),
            f"{record.images:,}",
        ]
        for name, records in runs.items()
        for record in records
        if "corruption" not in record.setting and not is_check(record)
    ]
    rows += [_checks(name, checks) for name, records in runs.items() if (checks := list(filter(is_check, records)))]
    versions = {name: _versions(records) for name, records in runs.items()}
    lines = [
        f"- {name}: {known}; measured on {runs[name].facts.get('date', UNKNOWN)}." for name, known in versions.items()
    ]
    return f"{markdown_table(head, rows)}\n\nVersions:\n\n" + "\n".join(lines)


def _setting(record: Record, records: Records) -> str:
    setting = record.setting
    seed = {} if "seed" in setting or "seed" not in records.facts else {"seed": records.facts["seed"]}
    return described({**setting, **seed}, records.classes)


def _value(record: Record) -> tuple[str, str]:
    return percent(record.value), interval_in_words(record.interval)


def _checks(name: str, checks: list[Record]) -> list[str]:
    """Return a row for all sanity checks of a model, with the words of those that failed."""
    failed = [f"{each.metric}: {each.setting['says']}" for each in checks if not each.setting["ok"]]
    text = f"{len(checks)} checks: {', '.join(each.metric for each in checks)}"
    value = f"{len(failed)} fail: {'; '.join(failed)}" if failed else "all pass"
    return [name, checks[0].evaluation, text, value, "–", f"{checks[0].images:,}"]


def _versions(records: Records) -> str:
    packages = records.facts.get("versions", {})
    shown = ", ".join(f"{package} {number}" for package, number in packages.items()) or UNKNOWN
    return f"{shown}; commit {records.facts.get('commit', UNKNOWN)}"


def _fingerprints(runs: Mapping[str, Records]) -> str:
    facts = {
        "model": model_of,
        "weights before the training run": start_of,
        "weights that were measured": fingerprint_of,
        "training": training_of,
        "images measured": images_of,
        "training images among them": overlap_of,
    }
    rows = [[name, *(words(records) or UNKNOWN for records in runs.values())] for name, words in facts.items()]
    return markdown_table(["", *runs], rows) + (
        "\n\nFingerprints are BLAKE2b hashes of 64 bits: they tell copies from changes, and are no protection against a forger. "
        "Images count as the same if all their pixels are, in 8 bits."
    )


def _act(runs: Mapping[str, Records]) -> str:
    act = standards()["EU AI Act"]
    rows = [[each["number"], each["about"], _here(each["here"], runs)] for each in act["articles"]]
    dates = "; ".join(f"{each['what']}: from {each['from']} ({each['note']})" for each in act["applies"])
    table = markdown_table(["provision", "about", "in this report"], rows)
    return f"{act['title']}.\n\n{table}\n\nDates of application: {dates}. Draft standard: {act['draft standard']}."


def _here(here: str, runs: Mapping[str, Records]) -> str:
    """Return what a report holds for a provision; the words "attacks", "corruptions" and "model" stand for what was done."""
    if here == "corruptions":
        done = all(records.where("corruptions") for records in runs.values())
        return "accuracy under natural corruptions" if done else "not measured (`corruptions`)"
    if here == "attacks":
        judged = judged_at(runs)
        return (
            "not measured"
            if judged is None
            else f"accuracy under evasion attacks, {judged.adversary}; nothing else of it"
        )
    if here == "model":
        return "; ".join(
            f"{name}: {model_of(records) or UNKNOWN}, training {training_of(records) or UNKNOWN}"
            for name, records in runs.items()
        )
    return here


def _iso(runs: Mapping[str, Records]) -> str:
    iso = standards()["ISO/IEC 24029"]
    done = {record.evaluation for records in runs.values() for record in records}
    methods = [
        [each["method"], ", ".join(name for name in each["evaluations"] if name in done) or "none", each["note"]]
        for each in iso["methods"]
    ]
    properties = [[each["property"], each["here"]] for each in iso["properties"]]
    kinds = markdown_table(["kind of method", "evaluations here", "note"], methods)
    return f"{iso['title']}.\n\n{kinds}\n\n{markdown_table(['property', 'here'], properties)}"


def _source(text: Mapping[str, str]) -> str:
    return f"- {text['title']}, {text['date']}: {text['source']}. Read: {text['read']}."
