"""Comparison of two models on the same images, with McNemar's exact test."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from robusttune.measuring.agreement import OWN, caveat, measured_word, whose
from robusttune.measuring.record import AGREEMENT, Record, described, percent
from robusttune.measuring.records import Records, records_of
from robusttune.run.markdown import as_text, markdown_table
from robusttune.types import PathLike

HEAD = ("what", "first", "second", "difference", "only first right", "only second right", "images", "p")
# Settings that two measurements of one quantity may differ in.
IGNORED = ("seed", "in training")


class OtherLabelsError(ValueError):
    """Two Records hold other labels for the same images, so that the accuracies of one of them are wrong."""


@dataclass(frozen=True)
class Comparison:
    """One accuracy measured on two models, and the test whether they differ.

    Attributes:
        what: the evaluation and its setting.
        first, second: the accuracy of each model on the images that both were measured on.
        images: the number of these images.
        only_first, only_second: the number of images that only this model classified right.
        p: the two-sided p-value of McNemar's exact test.
    """

    what: str
    first: float
    second: float
    images: int
    only_first: int
    only_second: int
    p: float


class Comparisons(list[Comparison]):
    """A list of Comparison that can be shown.

    Attributes:
        note: what agreement is, where the images have no labels; "" for accuracies.
        left_out: a sentence about accuracies that could not be compared, such as those that only one model has; "" for none.
    """

    note: str = ""
    left_out: str = ""

    def table(self) -> str:
        """Return a Markdown table with one row a Comparison."""
        rows = [
            (
                as_text(test.what),
                percent(test.first),
                percent(test.second),
                f"{100 * (test.second - test.first):+.1f}",
                test.only_first,
                test.only_second,
                test.images,
                f"{test.p:.2g}",
            )
            for test in self
        ]
        return "\n\n".join(text for text in (markdown_table(HEAD, rows), self.note, self.left_out) if text)

    def __str__(self) -> str:
        return self.table()

    def _repr_markdown_(self) -> str:
        return self.table()


def compare(first: Records | PathLike, second: Records | PathLike) -> Comparisons:
    """Return McNemar's test of each accuracy that two models have in common, on the images that both were measured on.

    On images without labels, the agreement of both models with a teacher is compared: with the same teacher, or each with itself.

    Images are paired by their contents, so the order in which loaders yield them does not matter. The test is about these
    two models, not about their settings: training with another seed gives another model.

    Args:
        first, second: the Records that `evaluate` returned for two models, or what `Records.load` reads: their files, the
            folders that `evaluate` wrote to, or those of the runs.

    Raises:
        ValueError: the two have no image or no measurement in common, Records lack the answers to single images, or one is
            accuracy and the other agreement, or both are agreement with different teachers.

    Source: McNemar 1947, doi:10.1007/BF02295996.
    """
    first, second = records_of(first), records_of(second)
    pairs = paired_rows(first, second)
    measured_word([first, second])  # refuses accuracy beside agreement
    counterparts: dict[tuple[object, ...], list[tuple[bool, ...]]] = {}  # several where the seeds of an attack differ
    for record in second:
        if record.right is not None:
            counterparts.setdefault(key_of(record), []).append(record.right)
    comparisons = Comparisons()
    comparisons.note = _note(first, second, pairs)
    for record in first:
        rights = counterparts.get(key_of(record))
        if record.right is not None and rights:
            right = rights.pop(0) if len(rights) > 1 else rights[0]
            comparisons.append(compared(_named(record), record.right, right, pairs))
    comparisons.left_out = _left_out(first, second)
    if not comparisons:
        raise ValueError("the two have no measurement in common: evaluate both models with the same evaluations")
    return comparisons


def _left_out(first: Records, second: Records) -> str:
    """Name the accuracies that cannot be compared, as only one of two models has them, or not for each image; "" for none."""
    rights = [[record for record in records if record.right is not None] for records in (first, second)]
    keys = [{key_of(record) for record in records} for records in rights]
    parts = [
        f"only of the {name} {'; '.join(dict.fromkeys(alone))}"
        for name, records, others in zip(("first", "second"), rights, reversed(keys), strict=True)
        if (alone := [_named(record) for record in records if key_of(record) not in others])
    ]
    texts = []
    if parts:
        texts.append(
            f"Not compared, as one model alone has it: {'. And '.join(parts)}. Evaluate both alike, with the same norm and eps."
        )
    if any(record.evaluation == "quick" and record.right is None for record in (*first, *second)):
        texts.append(
            "Not compared: `quick`, which measures a part of the images alone: evaluate both with `sweep` or `strong`."
        )
    return " ".join(texts)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test, from the numbers of trials that only one side got right.

    Example:
        >>> round(mcnemar(1, 9), 4)
        0.0215
    """
    total, least = only_first + only_second, min(only_first, only_second)
    tail = ways = 1
    for count in range(least):
        ways = ways * (total - count) // (count + 1)  # of choosing one more; `math.comb` would begin anew each time
        tail += ways
    return float(min(1, 2 * tail / 2**total))


def paired_rows(first: Records, second: Records) -> list[tuple[int, int]]:
    """List the rows of the images that two models were measured on.

    Raises:
        OtherLabelsError: an image has another label in the second Records.
        ValueError: Records hold no answers to single images, or no image is in both.
    """
    for name, records in (("first", first), ("second", second)):
        if not getattr(records, "hashes", ()):
            raise ValueError(
                f"the {name} Records hold no answers to single images: pass all Records that evaluate returned, not some"
            )
    pairs = _paired(first, second)
    if not pairs:
        raise ValueError("the two have no image in common: evaluate both models on the same images")
    same_names = first.classes == second.classes and bool(first.labels) and bool(second.labels)
    if (
        same_names
        and any(first.labels[row] != second.labels[other] for row, other in pairs)
        and not _agreements(first, second)
    ):
        raise OtherLabelsError(
            "the two have other labels for the same images, so one of them was measured with wrong ones: look at the order of the "
            "classes in both evaluations"
        )
    return pairs


def _agreements(first: Records, second: Records) -> bool:
    """Return True if labels are the answers of teachers, which `_note` compares."""
    return caveat(first.facts) is not None or caveat(second.facts) is not None


def compared(what: str, first: Sequence[bool], second: Sequence[bool], pairs: Sequence[tuple[int, int]]) -> Comparison:
    """Compare the answers of two models to the images in common.

    Args:
        what: was measured.
        first, second: for each image of a model whether its answer is right.
        pairs: the rows of each image in both.
    """
    counts = Counter((first[row], second[other]) for row, other in pairs)
    both, only_first, only_second = counts[True, True], counts[True, False], counts[False, True]
    return Comparison(
        what=what,
        first=(both + only_first) / len(pairs),
        second=(both + only_second) / len(pairs),
        images=len(pairs),
        only_first=only_first,
        only_second=only_second,
        p=mcnemar(only_first, only_second),
    )


def _named(record: Record) -> str:
    setting = described({key: value for key, value in record.setting.items() if key not in IGNORED})
    kind = f", {AGREEMENT}" if record.metric == AGREEMENT else ""
    return f"{record.evaluation}{kind}{', ' * bool(setting)}{setting}"


def _note(first: Records, second: Records, pairs: list[tuple[int, int]]) -> str:
    """Return a note that names the teacher whose answers replace labels, if any.

    Raises:
        ValueError: they are of two teachers.
    """
    ours, theirs = caveat(first.facts), caveat(second.facts)
    if ours is None or theirs is None or ours == theirs:
        return ours or ""
    if any(first.labels[row] != second.labels[other] for row, other in pairs):
        raise ValueError(
            f"the first is agreement with {whose(first.facts)}, the second with {whose(second.facts)}, and these answers differ: "
            "pass the same teacher= to both evaluations"
        )
    return ours if whose(first.facts) != OWN else theirs


def _paired(first: Records, second: Records) -> list[tuple[int, int]]:
    """List the rows of the images in common; copies of an image are paired in order, those with the same label first."""
    images = [range(len(records.hashes)) for records in (first, second)]
    labels = [records.labels or [None] * len(records.hashes) for records in (first, second)]
    pairs: dict[int, int] = {}
    for named in (True, False):
        waiting: dict[object, list[int]] = {}
        taken = set(pairs.values())
        for row in images[1]:
            if row not in taken:
                waiting.setdefault((second.hashes[row], named and labels[1][row]), []).append(row)
        for row in images[0]:
            others = waiting.get((first.hashes[row], named and labels[0][row]))
            if row not in pairs and others:
                pairs[row] = others.pop(0)
    return sorted(pairs.items())


def key_of(record: Record) -> tuple[object, ...]:
    """Return what a Record measures: Records of one key, of two models, are measurements of one quantity."""
    setting = [(key, repr(value)) for key, value in record.setting.items() if key not in IGNORED]
    return (record.evaluation, record.metric, *sorted(setting))


def measured_alike(first: Sequence[Record], second: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Select the Records of two models that measure the same quantities; with several seeds, as many of both models.

    An attack that is repeated with more seeds is a stronger one. Seeds that both models have come before others.

    Example:
        >>> once, twice = ([Record("strong", "accuracy", 0.5, 10, (0, 1), {"seed": seed}) for seed in seeds] for seeds in ([1], [0, 1]))
        >>> [[record.setting["seed"] for record in records] for records in measured_alike(once, twice)]
        [[1], [1]]
    """
    return _as_many(first, second), _as_many(second, first)


def _as_many(records: Sequence[Record], others: Sequence[Record]) -> list[Record]:
    """Select as many Records of each quantity as the other model has, preferring the same seeds; their order is kept."""
    left = Counter(map(key_of, others))
    theirs = {(key_of(other), repr(other.setting.get("seed"))) for other in others}
    keys = [key_of(record) for record in records]
    with_seeds = [(key, repr(record.setting.get("seed"))) for key, record in zip(keys, records, strict=True)]
    kept = set[int]()
    for row in sorted(range(len(records)), key=lambda row: with_seeds[row] not in theirs):
        if left[keys[row]]:
            left[keys[row]] -= 1
            kept.add(row)
    return [record for row, record in enumerate(records) if row in kept]
