"""Images without labels in hardening: what they bring at 200, 1,000 and 5,000 labels of 10,000 images.

    python examples/self_training.py --setting cnn-linf --labels 200 1000 --seeds 0 1 2     # adds to the records
    python examples/self_training.py --tables                                              # from the records alone

Every arm starts from a model that was trained ordinarily on the same labels, and takes the same number of steps with the
fast recipe. A run that is in the records already is not repeated, so that a study may be stopped and continued.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import torch
from images import FASHION_MNIST, SIDE, fashion_mnist, first
from ordinary import new_model, train
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

import robusttune
from robusttune.evaluations.autoattack import autoattack
from robusttune.evaluations.strong import strong
from robusttune.evaluations.sweep import sweep

RECORDS = Path(__file__).parents[1] / "docs" / "studies" / "self-training.jsonl"
IMAGES, TEST, BATCH, EPOCHS = 10_000, 1_000, 128, 6
FIRST_STEPS = 400  # of ordinary training on the labels
PRETRAINING = 4  # epochs over all images


class Setting(NamedTuple):
    """A model and an adversary."""

    model: str
    norm: str
    eps: float


SETTINGS = {
    "cnn-linf": Setting("test_resnet", "linf", 0.1),
    "cnn-l2": Setting("test_resnet", "l2", 1.0),
    "vit-linf": Setting("test_vit", "linf", 0.1),
}


class Case(NamedTuple):
    """The data of one run: all images with labels, those whose labels are used, the others without, and a seed."""

    setting: Setting
    images: Dataset
    labelled: Dataset
    unlabelled: Dataset
    seed: int

    def loader(self, images: Dataset) -> DataLoader:
        """A loader in a random order that the seed draws."""
        return DataLoader(images, BATCH, shuffle=True, generator=torch.Generator().manual_seed(self.seed))

    def start(self, images: Dataset, *, pretrained: bool = False) -> nn.Module:
        """A model trained ordinarily on these images, its backbone before that on rotation and jigsaw over all images."""
        torch.manual_seed(self.seed)
        model = new_model(self.setting.model, 1, 10, SIDE)
        if pretrained:
            robusttune.pretrain(
                model, self.loader(self.images), epochs=PRETRAINING, lr=0.1, seed=self.seed, progress=False
            )
        loader = self.loader(images)
        return train(model, loader, max(1, round(FIRST_STEPS / len(loader))), progress=False)

    def hardened(self, model: nn.Module, images: Dataset, **settings: object) -> nn.Module:
        """The model after as many steps as EPOCHS over all images take."""
        steps = EPOCHS * IMAGES // BATCH
        chosen = {"preset": "fast", "tasks": None, "epochs": 10_000, "max_steps": steps, **settings}
        threat = {"norm": self.setting.norm, "eps": self.setting.eps}
        return robusttune.harden(
            model, self.loader(images), **threat, seed=self.seed, tune=False, progress=False, **chosen
        )


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


def known_model(case: Case) -> nn.Module:
    """All true labels, from a model that was trained on all of them."""
    return case.hardened(case.start(case.images), case.images)


def no_labels(case: Case) -> nn.Module:
    """No label at all: a model that was trained on all of them learns from its own answers."""
    alone = Unlabelled(case.images)
    return case.hardened(case.start(case.images), alone)


class Unlabelled(Dataset):
    """Images without their labels."""

    def __init__(self, images: Dataset) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> torch.Tensor:
        return self.images[row][0]


ARMS: dict[str, Callable[[Case], nn.Module]] = {
    "labels alone": labels_alone,
    "pretext tasks on the others": pretext,
    "self-training": self_training,
    "pre-trained, self-training": partial(self_training, pretrained=True),
    "all true labels": all_labels,
}
ALL_LABELS: dict[str, Callable[[Case], nn.Module]] = {"all true labels": known_model, "no label at all": no_labels}


def measured(model: nn.Module, setting: Setting, testing: DataLoader, judge: str) -> dict[str, float]:
    """Clean accuracy, the sweep past the radius, and accuracy at the radius under the judge."""
    factors = (0.5, 1.0, 1.5)
    which: list[object] = [
        "clean",
        partial(sweep, norms=[setting.norm], eps=[f * setting.eps for f in factors], steps=20),
    ]
    which.append(partial(strong, targets=3) if judge == "strong" else autoattack)
    records = robusttune.evaluate(model, testing, which, norm=setting.norm, eps=setting.eps, progress=False)
    values = {"clean": next(each.value for each in records if each.evaluation == "clean")}
    for factor in factors:
        values[f"{factor:g} eps"] = next(
            each.value for each in records if each.evaluation == "sweep" and each.setting["eps"] == factor * setting.eps
        )
    values[judge] = [each.value for each in records if each.evaluation == judge and each.metric == "accuracy"][-1]
    return values


def run(name: str, count: int, arm: str, seed: int, judge: str) -> dict[str, object]:
    """Train and measure one arm."""
    training, testing = fashion_mnist()
    images = first(training, IMAGES)
    order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(seed)).tolist()
    setting, everything = SETTINGS[name], count >= IMAGES
    case = Case(setting, images, Subset(images, order[:count]), Subset(images, order[count:]), seed)
    began = time.process_time()
    model = (ALL_LABELS if everything else ARMS)[arm](case)
    seconds = time.process_time() - began
    values = measured(copy.deepcopy(model), setting, DataLoader(first(testing, TEST), 250), judge)
    return {"setting": name, "labels": count, "arm": arm, "seed": seed, "seconds": round(seconds, 1), **values}


def known() -> list[dict[str, object]]:
    """The records so far."""
    return [json.loads(line) for line in RECORDS.read_text().splitlines()] if RECORDS.exists() else []


def key(record: dict[str, object], judge: str) -> tuple[object, ...]:
    """The fields by which a run is known, and whether this judge has seen it."""
    return (*(record[name] for name in ("setting", "labels", "arm", "seed")), judge in record)


def table(name: str, records: list[dict[str, object]]) -> str:
    """The means over seeds of one setting, with standard deviations at the radius."""
    mine = [record for record in records if record["setting"] == name]
    columns = ["clean", "0.5 eps", "1 eps", "1.5 eps", "strong", "autoattack"]
    columns = [column for column in columns if any(column in record for record in mine)]
    lines = [f"| labels | arm | seeds | {' | '.join(columns)} | seconds |", "|" + "---|" * (len(columns) + 4)]
    groups: dict[tuple[int, str], list[dict[str, object]]] = {}
    for record in mine:
        groups.setdefault((record["labels"], record["arm"]), []).append(record)
    order = [*ARMS, *ALL_LABELS]
    for (count, arm), runs in sorted(groups.items(), key=lambda item: (item[0][0], order.index(item[0][1]))):
        cells = [cell([each[column] for each in runs if column in each]) for column in columns]
        seconds = f"{mean(each['seconds'] for each in runs):.0f}"
        lines.append(f"| {count:,} | {arm} | {len(runs)} | {' | '.join(cells)} | {seconds} |")
    return "\n".join(lines)


def cell(values: list[float]) -> str:
    """The mean of shares in percent, and their standard deviation where there are several."""
    if not values:
        return ""
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread}"


def main() -> None:
    """Run what is missing, or print the tables."""
    options = arguments()
    if options.tables:
        for name in dict.fromkeys(record["setting"] for record in known()):
            print(f"\n{name}: {' '.join(map(str, SETTINGS[name]))}\n\n{table(name, known())}")
        return
    torch.set_num_threads(1)
    done = {key(record, options.judge) for record in known()}
    for seed in options.seeds:
        for count in options.labels:
            arms = ALL_LABELS if count >= IMAGES else ARMS
            for arm in options.arms or arms:
                if arm in arms and (options.setting, count, arm, seed, True) not in done:
                    record = run(options.setting, count, arm, seed, options.judge)
                    print(json.dumps(record), flush=True)
                    with RECORDS.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(record) + "\n")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--setting", choices=SETTINGS, default="cnn-linf")
    parser.add_argument("--labels", type=int, nargs="+", default=[200, 1000], help="10000 for the arms with all labels")
    parser.add_argument("--arms", nargs="+", choices=[*ARMS, *ALL_LABELS], help="by default all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--judge", choices=["strong", "autoattack"], default="strong")
    parser.add_argument("--tables", action="store_true", help="print the tables of the records, and run nothing")
    if not FASHION_MNIST.exists():
        parser.exit(1, f"{FASHION_MNIST} is not there: install Debian's dataset-fashion-mnist\n")
    return parser.parse_args()


if __name__ == "__main__":
    main()
