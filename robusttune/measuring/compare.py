"""Do two models differ on the same images?"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from robusttune.measuring.record import Record, described, percent
from robusttune.measuring.records import Records

# What may differ between two measurements of the same thing.
ASIDE = ("seed", "in training")


@dataclass(frozen=True)
class Comparison:
    """One number measured on two models, and whether they differ by more than chance.

    Attributes:
        what: the evaluation and its setting.
        first, second: the accuracy of either model on the images that both have seen.
        images: how many these are.
        only_first, only_second: how many of them only one model got right.
        p: of McNemar's exact test, two-sided: how often models that are equally good differ at least so much.
    """

    what: str
    first: float
    second: float
    images: int
    only_first: int
    only_second: int
    p: float


class Comparisons(list[Comparison]):
    """Comparisons that can be shown."""

    def table(self) -> str:
        """A Markdown table, one row a comparison."""
        head = "| what | first | second | difference | only first right | only second right | images | p |"
        lines = [head, "|---|---|---|---|---|---|---|---|"]
        for each in self:
            difference = f"{100 * (each.second - each.first):+.1f}"
            single = f"{each.only_first} | {each.only_second} | {each.images} | {each.p:.2g}"
            lines.append(f"| {each.what} | {percent(each.first)} | {percent(each.second)} | {difference} | {single} |")
        return "\n".join(lines)

    def _repr_markdown_(self) -> str:
        return self.table()


def compare(first: Records, second: Records) -> Comparisons:
    """Each accuracy that both were measured by, on the images that both have seen, with McNemar's exact test.

    Images are paired by their contents, so it does not matter in which order loaders gave them. The test speaks of these
    two models on such images, not of the two recipes that made them: another seed makes another model.

    Args:
        first, second: what `evaluate` returned for two models, or `Records.load` of what it saved.

    Raises:
        ValueError: no image, or no measurement, is common to both, or Records do not know single images.

    Source: McNemar 1947, doi:10.1007/BF02295996.
    """
    for name, records in (("first", first), ("second", second)):
        if not getattr(records, "hashes", ()):
            raise ValueError(
                f"the {name} Records do not know single images: pass what evaluate returned, not a part of it"
            )
    rows = _paired(first.hashes, second.hashes)
    if not rows:
        raise ValueError("the two have no image in common: evaluate both models on the same images")
    others = {_key(record): record for record in second if record.right is not None}
    found = Comparisons()
    for record in first:
        other = others.get(_key(record))
        if record.right is not None and other is not None and other.right is not None:
            found.append(_compared(record, record.right, other.right, rows))
    if not found:
        raise ValueError("the two have no measurement in common: evaluate both models with the same evaluations")
    return found


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided p of McNemar's exact test, from how many trials only one side got right.

    Example:
        >>> round(mcnemar(1, 9), 4)
        0.0215
    """
    total, least = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(total, count) for count in range(least + 1))
    return float(min(1, 2 * tail / 2**total))


def _compared(
    record: Record, first: tuple[bool, ...], second: tuple[bool, ...], rows: list[tuple[int, int]]
) -> Comparison:
    pairs = Counter((first[one], second[other]) for one, other in rows)
    both, ours, theirs = pairs[True, True], pairs[True, False], pairs[False, True]
    count = len(rows)
    setting = described({key: value for key, value in record.setting.items() if key not in ASIDE})
    what = f"{record.evaluation}{', ' * bool(setting)}{setting}"
    return Comparison(what, (both + ours) / count, (both + theirs) / count, count, ours, theirs, mcnemar(ours, theirs))


def _paired(first: tuple[str, ...], second: tuple[str, ...]) -> list[tuple[int, int]]:
    """The rows of the images that both have; an image that is there several times pairs in turn."""
    waiting: dict[str, list[int]] = {}
    for row, image in enumerate(second):
        waiting.setdefault(image, []).append(row)
    return [(row, waiting[image].pop(0)) for row, image in enumerate(first) if waiting.get(image)]


def _key(record: Record) -> tuple[Any, ...]:
    setting = [(key, repr(value)) for key, value in record.setting.items() if key not in ASIDE]
    return (record.evaluation, record.metric, *sorted(setting))
