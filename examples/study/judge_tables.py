"""The tables of the judges: accuracy by suite, judges in pairs on the same images, and their seconds."""

from collections.abc import Iterable, Sequence
from itertools import product

from examples.study.judge_attacks import AGAIN, JUDGES
from examples.study.judge_models import MASKED, TEN, Entry
from examples.study.records import Facts
from robusttune.measuring.compare import mcnemar
from robusttune.measuring.intervals import wilson
from robusttune.run.markdown import markdown_table

CLEAN = "clean"
OURS = "robusttune cross-entropy"
MARGIN, PROBABILITY = "robusttune margin", "robusttune probability margin"
TARGETED = "robusttune targeted, 50 steps"
STRONG, STRONGER = "`strong`", "`strong`, probability margin"
SUITES = {
    "torchattacks": ("torchattacks APGD-CE", "torchattacks APGD-T"),
    "adv-lib": ("adv-lib APGD-CE", "adv-lib APGD-T"),
    "original": ("original APGD-CE", "original APGD-T"),
    "robusttune": (OURS, "robusttune targeted"),
    STRONG: (OURS, MARGIN, TARGETED),
    STRONGER: (OURS, PROBABILITY, TARGETED),
    "torchattacks and adv-lib's APGD-T": ("torchattacks APGD-CE", "torchattacks APGD-T", "adv-lib APGD-T"),
}
SHOWN = ("torchattacks", "adv-lib", "original", "robusttune", STRONG, STRONGER)
FIRST = "torchattacks APGD-T"
PAIRS = (
    (FIRST, "adv-lib APGD-T"),
    (FIRST, "original APGD-T"),
    (FIRST, "robusttune targeted"),
    (FIRST, AGAIN),
    ("original APGD-T", "adv-lib APGD-T"),
    ("torchattacks APGD-CE", "adv-lib APGD-CE"),
    ("torchattacks APGD-CE", "original APGD-CE"),
    ("torchattacks APGD-CE", OURS),
    (MARGIN, PROBABILITY),
    ("torchattacks", "torchattacks and adv-lib's APGD-T"),
    ("torchattacks", STRONG),
    (STRONG, STRONGER),
)


class Answers:
    """Whether images keep their class, by model, part and judge or suite."""

    def __init__(self, runs: Iterable[Facts]) -> None:
        self.known = {(run["model"], run["judge"], run["part"]): str(run["right"]) for run in runs}
        self.parts = sorted({part for _, _, part in self.known})

    def of(self, entry: Entry, name: str, part: int) -> list[bool] | None:
        """Return for each image if it keeps its class under the judge, or under all of a suite; None if this is not known."""
        judges = SUITES.get(name, (name,))
        found = [self.known.get((entry.title, judge, part)) for judge in judges]
        if None in found:
            return None
        return [all(answer == "1" for answer in answers) for answers in zip(*found, strict=True)]

    def joined(self, entries: Sequence[Entry], names: Sequence[str]) -> list[tuple[bool, ...]]:
        """Return the answers under several judges, one tuple an image, of those images that all of them have attacked."""
        rows: list[tuple[bool, ...]] = []
        for entry, part in product(entries, self.parts):
            answers = [self.of(entry, name, part) for name in names]
            if None not in answers:
                rows += zip(*answers, strict=True)
        return rows

    def judges_of(self, entry: Entry) -> list[str]:
        """Return the judges who have attacked all images of this model that anybody has."""
        seen = [judge for judge in [CLEAN, *JUDGES] if (entry.title, judge, 0) in self.known]
        parts = [part for part in self.parts if (entry.title, CLEAN, part) in self.known]
        return [judge for judge in seen if all((entry.title, judge, part) in self.known for part in parts)]


def tables(runs: Sequence[Facts]) -> str:
    """Return the tables of accuracies, of pairs and of seconds."""
    answers = Answers(runs)
    return "\n\n".join([accuracies(answers), pairs(answers), seconds(runs)])


def accuracies(answers: Answers) -> str:
    """Return a table with one row a model: accuracy in percent on images as they are and under each suite."""
    rows = []
    for entry in [*TEN, *MASKED]:
        shares = [_share(answers.joined([entry], [name])) for name in (CLEAN, *SHOWN)]
        found = answers.joined([entry], answers.judges_of(entry))
        if found and shares[1]:  # by the first suite
            rows.append((entry.title, len(found), *shares, _share(found, interval=True)))
    return markdown_table(("model, adversary", "images", CLEAN, *SHOWN, "all judges"), rows)


def _share(found: Sequence[tuple[bool, ...]], *, interval: bool = False) -> str:
    """Return the share in percent of images that keep their class under all judges, and its 95% interval; "" for no image."""
    if not found:
        return ""
    right = sum(map(all, found))
    low, high = wilson(right, len(found))
    return f"{100 * right / len(found):.1f}" + (f" ({100 * low:.1f}–{100 * high:.1f})" if interval else "")


def pairs(answers: Answers) -> str:
    """Return a table of judges in pairs: the images that fell to one of the two alone, and the p-value of McNemar's test."""
    rows = []
    for first, second in PAIRS:
        cells: list[object] = []
        for entries in (TEN, MASKED):
            found = answers.joined(entries, [first, second])
            only_first = sum(other and not one for one, other in found)
            only_second = sum(one and not other for one, other in found)
            counts = [len(found), only_first, only_second, f"{mcnemar(only_first, only_second):.2g}"]
            cells += counts if found else [""] * 4
        if any(cells):
            rows.append((first, second, *cells))
    counts_of = ("images", "first alone", "second alone", "p")
    return markdown_table(("first", "second", *counts_of, *(f"{name}, masked" for name in counts_of)), rows)


def seconds(runs: Sequence[Facts]) -> str:
    """Return a table of the seconds of the processor that each judge took for the ten models, and for one image."""
    titles = {entry.title for entry in TEN}
    rows = []
    for judge in JUDGES:
        mine = [run for run in runs if run["judge"] == judge and run["model"] in titles]
        if mine:
            total, images = sum(float(str(run["seconds"])) for run in mine), sum(len(str(run["right"])) for run in mine)
            rows.append((judge, images, f"{total:.0f}", f"{1000 * total / images:.0f}"))
    return markdown_table(("judge", "images", "seconds", "milliseconds an image"), rows)
