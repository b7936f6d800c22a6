"""Headline of a report: what two models differ by under attack and on unchanged images, and how sure that is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from robusttune.measuring.agreement import measured_word, whose
from robusttune.measuring.attacked import (
    Judged,
    attacks_in,
    clean_of,
    expected_robustness,
    judged_at,
    radii_up_to,
    worst_of,
)
from robusttune.measuring.compare import Comparison, OtherLabelsError, compare, measured_alike
from robusttune.measuring.intervals import paired_difference
from robusttune.measuring.record import Record, described
from robusttune.measuring.records import Records
from robusttune.types import Json

IN_TITLE = ("norm", "eps")  # settings of an attack that are said elsewhere


@dataclass(frozen=True)
class Change:
    """One accuracy of a model, and of the model that it is compared with.

    Attributes:
        first: the accuracy of the model to compare with; None if there is none, or it was not measured.
        second: the accuracy of the model; None if it was not measured.
        test: the paired test on the images that both have seen; None if there is none.
        alike: False if the two met other attacks, so that they cannot be compared.
    """

    first: Record | None
    second: Record | None
    test: Comparison | None = None
    alike: bool = True

    @property
    def difference(self) -> float | None:
        """The second accuracy minus the first, on the same images where there is a test; None if one is missing, or not alike."""
        if self.test is not None:
            return self.test.second - self.test.first
        if self.first is None or self.second is None or not self.alike:
            return None
        return self.second.value - self.first.value

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval of the difference; None without a test."""
        test = self.test
        return None if test is None else paired_difference(test.only_first, test.only_second, test.images)

    def as_json(self) -> dict[str, Json]:
        """Return all numbers as JSON holds them."""
        return {
            **{name: share_as_json(record) for name, record in (("first", self.first), ("second", self.second))},
            "difference": self.difference,
            "interval": self.interval,
            "p": None if self.test is None else self.test.p,
            "images in common": None if self.test is None else self.test.images,
        }


@dataclass(frozen=True)
class Headline:
    """The headline of a report on one model: its accuracies, and their differences from another model if there is one.

    Attributes:
        first: the name of the model to compare with; None for none.
        second: the name of the model.
        word: "accuracy" or "agreement".
        answers: by the model's name, the teacher whose answers replace labels; None for true labels.
        judged: the adversary, and why it was chosen; None if no attack was measured.
        robust, clean: the accuracy under attack, and on unchanged images.
        attacks: the attacks behind `robust`, in words.
        same: False if the two models did not meet the same attacks.
        expected: the expected robustness by the model's name; None if it cannot be computed.
        failed: the numbers of sanity checks that a model failed, by its name.
    """

    first: str | None
    second: str
    word: str
    answers: Mapping[str, str | None]
    judged: Judged | None
    robust: Change
    clean: Change
    attacks: tuple[str, ...]
    same: bool
    expected: Mapping[str, Record | None]
    failed: Mapping[str, int]

    def as_json(self) -> dict[str, Json]:
        """Return all of it as JSON holds it."""
        adversary = None if self.judged is None else self.judged.adversary
        return {
            "first": self.first,
            "second": self.second,
            "measured": self.word,
            "norm": None if adversary is None else adversary.norm,
            "eps": None if adversary is None else adversary.eps,
            "why this radius": None if self.judged is None else self.judged.why,
            "under attack": self.robust.as_json(),
            "unchanged images": self.clean.as_json(),
            "attacks": self.attacks,
            "same attacks": self.same,
            "expected robustness": {name: share_as_json(record) for name, record in self.expected.items()},
            "failed sanity checks": dict(self.failed),
        }


def headlines(runs: Mapping[str, Records]) -> list[Headline]:
    """Return the headline of each model against the first, or of the only one.

    Raises:
        OtherLabelsError: two of them were measured with other labels for the same images.
    """
    judged = judged_at(runs)
    first, *others = runs
    pairs: list[tuple[str | None, str]] = [(first, other) for other in others] or [(None, first)]
    return [_headline(runs, baseline, name, judged) for baseline, name in pairs]


def share_as_json(record: Record | None) -> dict[str, Json] | None:
    """Return an accuracy, its interval and its number of images; None for none."""
    return None if record is None else {"value": record.value, "interval": record.interval, "images": record.images}


def _headline(runs: Mapping[str, Records], first: str | None, second: str, judged: Judged | None) -> Headline:
    before, after = Records() if first is None else runs[first], runs[second]
    attacks, same = _attacks(before, after, judged)
    robust = [worst_of(each) for each in attacks]
    clean = [clean_of(before), clean_of(after)]
    names = [name for name in (first, second) if name is not None]
    return Headline(
        first=first,
        second=second,
        word=measured_word(runs.values()),
        answers={name: whose(runs[name].facts) for name in names},
        judged=judged,
        robust=_change(before, after, robust) if same else Change(robust[0], robust[1], alike=False),
        clean=_change(before, after, clean),
        attacks=_words(attacks[1] or attacks[0]),
        same=same,
        expected=dict.fromkeys(names) if judged is None else _expected(runs, names, judged),
        failed={name: count for name in names if (count := _failed(runs[name]))},
    )


def _expected(runs: Mapping[str, Records], names: Sequence[str], judged: Judged) -> dict[str, Record | None]:
    """Return the expected robustness of one or two models: of two by the attacks that both met, where they met one at the adversary."""
    among, parts = _shared(runs, judged), {name: runs[name] for name in names}
    if len(names) > 1:
        alike = measured_alike(*(attacks_in(records) for records in parts.values()))
        if any(judged.adversary.fits(record) for record in alike[0]):
            parts = {
                name: Records([*(record for record in [clean_of(runs[name])] if record is not None), *attacks])
                for name, attacks in zip(names, alike, strict=True)
            }
    return {name: expected_robustness(records, judged.adversary, among) for name, records in parts.items()}


def _shared(runs: Mapping[str, Records], judged: Judged) -> list[float]:
    """Return the radii up to the adversary's at which all models were attacked."""
    first, *others = [radii_up_to(records, judged.adversary) for records in runs.values()]
    return [eps for eps in first if all(any(math.isclose(eps, each, rel_tol=1e-5) for each in one) for one in others)]


def _attacks(before: Records, after: Records, judged: Judged | None) -> tuple[tuple[list[Record], list[Record]], bool]:
    """Select the attacks at the adversary that both models met, with as many seeds; all of each where there are none in common."""
    first, second = (
        [record for record in attacks_in(records) if judged is not None and judged.adversary.fits(record)]
        for records in (before, after)
    )
    alike = measured_alike(first, second)
    return (alike, True) if alike[0] else ((first, second), not first or not second)


def _change(before: Records, after: Records, pair: list[Record | None]) -> Change:
    """Compare two accuracies, of the same images where both Records have them; Records with other labels are refused."""
    first, second = pair
    if first is None or second is None:
        return Change(first, second)
    ours, theirs = _alone(first, before), _alone(second, after)
    try:
        return Change(first, second, compare(ours, theirs)[0])
    except OtherLabelsError:
        raise
    except ValueError:  # no answers to single images, or no image in common
        return Change(first, second)


def _alone(record: Record, records: Records) -> Records:
    """Return Records that hold one accuracy, under a key that is the same for every model."""
    kept = replace(record, evaluation="both", setting={})
    return Records([kept], facts=records.facts, hashes=records.hashes, labels=records.labels)


def _words(attacks: Sequence[Record]) -> tuple[str, ...]:
    """Name the attacks: each of `sweep`; the members of `strong` and `autoattack`, which follow each other, in one line."""
    lines: dict[tuple[str, ...], list[str]] = {}
    for number, record in enumerate(attacks):
        setting = {key: value for key, value in record.setting.items() if key not in (*IN_TITLE, "attack")}
        alone = (str(number),) if record.evaluation == "sweep" else ()
        line = lines.setdefault((record.evaluation, described(setting).replace("=", " "), *alone), [])
        line.append(str(record.setting.get("attack", "")))
    return tuple(
        f"`{name}` ({', '.join([*found, *([rest] if rest else [])])})" for (name, rest, *_), found in lines.items()
    )


def _failed(records: Records) -> int:
    return sum(not record.setting["ok"] for record in records.where("sanity"))
