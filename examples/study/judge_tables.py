"""The tables of the judges: accuracy by suite, judges in pairs on the same images, and their seconds."""

from collections.abc import Iterable, Sequence

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
SUITES = {
    "torchattacks": ("torchattacks APGD-CE", "torchattacks APGD-T"),
    "adv-lib": ("adv-lib APGD-CE", "adv-lib APGD-T"),
    "original": ("original APGD-CE", "original APGD-T"),
    "robusttune": (OURS, "robusttune targeted"),
    "strong": (OURS, MARGIN, TARGETED),
    "strong, probability margin": (OURS, PROBABILITY, TARGETED),
    "torchattacks and adv-lib's APGD-T": ("torchattacks APGD-CE", "torchattacks APGD-T", "adv-lib APGD-T"),
}
SHOWN = ("torchattacks", "adv-lib", "original", "robusttune", "strong", "strong, probability margin")
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
    ("torchattacks", "strong"),
    ("strong", "strong, probability margin"),
)
GROUPS = {
    "linf": [entry for entry in TEN if entry.threat.norm == "linf"],
    "l2": [entry for entry in TEN if entry.threat.norm == "l2"],
    "masked": MASKED,
}


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
        rows = []
        for entry in entries:
            for part in self.parts:
                answers = [self.of(entry, name, part) for name in names]
                if None not in answers:
                    rows += zip(*answers, strict=True)
        return rows


def tables(runs: Sequence[Facts]) -> str:
    """Return the tables of accuracies, of pairs and of seconds."""
    answers = Answers(runs)
    return "\n\n".join([accuracies(answers), pairs(answers), seconds(runs)])


def accuracies(answers: Answers) -> str:
    """Return a table with one row a model: accuracy in percent on images as they are and under each suite."""
    rows = []
    for entry in [*TEN, *MASKED]:
        found = answers.joined([entry], [CLEAN, *SHOWN])
        if found:
            shares = [100 * sum(column) / len(found) for column in zip(*found, strict=True)]
            worst = sum(map(all, found))
            low, high = wilson(worst, len(found))
            every = f"{100 * worst / len(found):.1f} ({100 * low:.1f}–{100 * high:.1f})"
            rows.append((entry.title, len(found), *(f"{share:.1f}" for share in shares), every))
    heads = [f"`{name}`" if name == "strong" else name.replace("strong,", "`strong`,") for name in SHOWN]
    return markdown_table(("model, adversary", "images", CLEAN, *heads, "all"), rows)


def pairs(answers: Answers) -> str:
    """Return a table of judges in pairs: the images that fell to one of the two alone, and the p-value of McNemar's test."""
    rows = []
    for first, second in PAIRS:
        for group, entries in GROUPS.items():
            found = answers.joined(entries, [first, second])
            if found:
                only_first = sum(other and not one for one, other in found)
                only_second = sum(one and not other for one, other in found)
                p = mcnemar(only_first, only_second)
                rows.append((first, second, group, len(found), only_first, only_second, f"{p:.2g}"))
    return markdown_table(
        ("first", "second", "models", "images", "fell to the first alone", "to the second alone", "p"), rows
    )


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
