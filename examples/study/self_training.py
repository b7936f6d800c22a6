"""Images without labels in hardening: what they bring at 200, 1,000 and 5,000 labels of 10,000 images.

    python -m examples.study.self_training --settings cnn-linf --labels 200 1000    # adds to the records
    python -m examples.study.self_training --tables                               # from the records alone

Every arm but "the one call" starts from a model that was trained ordinarily on the same labels, and takes the same number of
steps with the fast recipe. A run that is in the records already is not repeated, so that a study may be stopped and continued.
"""

from collections.abc import Callable, Sequence
from functools import partial
from statistics import mean

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import robusttune
from examples.study import program
from examples.study.cases import BATCH, IMAGES, SETTINGS, Case, Unlabelled, case
from examples.study.records import TITLES, Facts, Study, one_thread, timed


def labels_alone(case: Case) -> nn.Module:
    """The labelled images, many times over."""
    return case.hardened(case.start(case.labelled), case.labelled)


def pretext(case: Case) -> nn.Module:
    """Images without labels for rotation and jigsaw beside the robust loss."""
    extra = case.loader(case.unlabelled)
    tasks = {"rotation": 0.5, "jigsaw": 0.5}
    return case.hardened(
        case.start(case.labelled), case.labelled, unlabeled_loader=extra, teacher=None, tasks=tasks, attack_tasks="none"
    )


def self_training(case: Case, *, pretrained: bool = False) -> nn.Module:
    """Images without labels get those of the model as it was."""
    start = case.start(case.labelled, pretrained=pretrained)
    return case.hardened(start, case.labelled, unlabeled_loader=case.loader(case.unlabelled))


def soft_answers(case: Case) -> nn.Module:
    """As self-training, but each image without a label gets the probabilities that the model gives its classes."""
    model = case.start(case.labelled)
    known = {row: label for row, (_, label) in zip(case.labelled.indices, case.labelled, strict=True)}
    images = torch.stack([image for image, _ in case.images])
    with torch.no_grad():
        answers = torch.cat([model(part).softmax(1) for part in images.split(BATCH)])
    for row, label in known.items():
        answers[row] = F.one_hot(torch.as_tensor(label), answers.shape[1])
    return case.hardened(model, TensorDataset(images, answers))


def the_call(case: Case) -> nn.Module:
    """The one call of docs/few-labels.md, from random weights; the numbers are for 200 labels."""
    torch.manual_seed(case.seed)
    return robusttune.harden(
        case.setting.new(),
        case.loader(case.labelled, 32),
        unlabeled_loader=case.loader(case.unlabelled),
        norm=case.setting.norm,
        eps=case.setting.eps,
        preset="fast",
        pretrain_epochs=4,
        finetune=60,
        epochs=6,
        seed=case.seed,
        device="cpu",
        progress=False,
    )


def all_labels(case: Case) -> nn.Module:
    """All images with their true labels, from the same start: what could be had."""
    return case.hardened(case.start(case.labelled), case.images)


def no_labels(case: Case) -> nn.Module:
    """No label at all: the model learns from its own answers."""
    return case.hardened(case.start(case.labelled), Unlabelled(case.images))


FEW: dict[str, Callable[[Case], nn.Module]] = {
    "labels alone": labels_alone,
    "pretext tasks on the others": pretext,
    "self-training": self_training,
    "pre-trained, self-training": partial(self_training, pretrained=True),
    "all true labels": all_labels,
}
# At the least number of labels alone.
FURTHER: dict[str, Callable[[Case], nn.Module]] = {
    "self-training, soft answers": soft_answers,
    "the one call": the_call,
}
ALL: dict[str, Callable[[Case], nn.Module]] = {"all true labels": all_labels, "no label at all": no_labels}
ARMS = {**FEW, **FURTHER, **ALL}
ENDS = ("labels alone", "all true labels")
BETWEEN = ("self-training", "pre-trained, self-training")
FEWEST = 200  # labels
LEAST = 3.0  # points: a smaller gap is not divided
STUDY = Study(
    "self-training", lambda run: timed(partial(ARMS[run["arm"]], case(run["setting"], run["labels"], run["seed"])))
)


def arms_at(labels: int) -> dict[str, Callable[[Case], nn.Module]]:
    """The arms that run with a number of labels."""
    return ALL if labels == IMAGES else {**FEW, **(FURTHER if labels == FEWEST else {})}


def tables(part: str | None = None) -> str:
    """The table of each setting; for the part "gap", how much of the gap between few labels and all of them is closed."""
    if part == "gap":
        return gaps(STUDY.runs())
    return program.tables(STUDY, ["labels", "arm"], lambda facts: (facts[0], list(ARMS).index(facts[1])))


def gaps(runs: Sequence[Facts]) -> str:
    """A row for each setting, number of labels and judge: robust accuracy of few labels and of all, and what is reached between.

    A seed counts where the judge has seen all of these arms.
    """
    lines = [
        "| model, norm, labels | judge | seeds | labels alone | all true labels | self-training (of the gap) | pre-trained (of the gap) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, setting in SETTINGS.items():
        for labels in sorted({run["labels"] for run in runs if run["setting"] == name} - {IMAGES}):
            for judge in ("strong", "autoattack"):
                seen = [
                    shares(runs, {"setting": name, "labels": labels, "arm": arm}, judge) for arm in (*ENDS, *BETWEEN)
                ]
                seeds = sorted(set.intersection(*map(set, seen)))
                if seeds:
                    few, full, *between = (100 * mean(each[seed] for seed in seeds) for each in seen)
                    parts = [f"{value:.1f}{part_of(value - few, full - few)}" for value in between]
                    cells = [
                        f"{setting.title}, {labels:,}",
                        TITLES.get(judge, judge),
                        str(len(seeds)),
                        f"{few:.1f}",
                        f"{full:.1f}",
                        *parts,
                    ]
                    lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def shares(runs: Sequence[Facts], facts: Facts, judge: str) -> dict[object, float]:
    """What a judge found of the runs with these facts, by seed."""
    return {run["seed"]: run[judge] for run in runs if facts.items() <= run.items() and judge in run}


def part_of(points: float, gap: float) -> str:
    """Points as a part of a gap, where this is not too small."""
    return f" ({points / gap:.0%})" if gap >= LEAST else ""


def main() -> None:
    """Run what is missing, or print the tables."""
    parser = program.parser(__doc__.splitlines()[0], list(ARMS), ["cnn-linf", "cnn-l2", "vit-linf"])
    parser.add_argument(
        "--labels", type=int, nargs="+", choices=[FEWEST, 1000, 5000, IMAGES], default=[FEWEST, 1000, 5000, IMAGES]
    )
    options = parser.parse_args()
    if options.tables:
        print(tables(), tables("gap"), sep="\n\n")
        return
    one_thread()
    for seed in options.seeds:
        for setting in options.settings:
            for labels in options.labels:
                for arm in options.arms:
                    if arm in arms_at(labels):
                        run: Facts = {"setting": setting, "labels": labels, "arm": arm, "seed": seed}
                        STUDY.judge(run, options.judges, again=options.again)


if __name__ == "__main__":
    main()
