"""Images without labels in hardening: what they bring at 200, 1,000 and 5,000 labels of 10,000 images.

    python -m examples.study.self_training --settings cnn-linf --labels 200 1000 --seeds 0 1 2    # adds to the records
    python -m examples.study.self_training --tables                                             # from the records alone

Every arm starts from a model that was trained ordinarily on the same labels, and takes the same number of steps with the
fast recipe. A run that is in the records already is not repeated, so that a study may be stopped and continued.
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from examples.study import program
from examples.study.cases import IMAGES, Case, Unlabelled, case
from examples.study.records import Facts, Study, one_thread, timed


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
ALL: dict[str, Callable[[Case], nn.Module]] = {"all true labels": all_labels, "no label at all": no_labels}
ARMS = {**FEW, **ALL}
STUDY = Study(
    "self-training", lambda run: timed(partial(ARMS[run["arm"]], case(run["setting"], run["labels"], run["seed"])))
)


def tables() -> str:
    """The table of each setting."""
    return program.tables(STUDY, ["labels", "arm"], lambda facts: (facts[0], list(ARMS).index(facts[1])))


def main() -> None:
    """Run what is missing, or print the tables."""
    parser = program.parser(__doc__.splitlines()[0], list(ARMS), ["cnn-linf", "cnn-l2", "vit-linf"])
    parser.add_argument("--labels", type=int, nargs="+", choices=[200, 1000, 5000, IMAGES], default=[200, 1000, IMAGES])
    options = parser.parse_args()
    if options.tables:
        print(tables())
        return
    one_thread()
    for seed in options.seeds:
        for setting in options.settings:
            for labels in options.labels:
                for arm in options.arms:
                    if arm in (ALL if labels == IMAGES else FEW):
                        run: Facts = {"setting": setting, "labels": labels, "arm": arm, "seed": seed}
                        STUDY.judge(run, options.judges)


if __name__ == "__main__":
    main()
