"""A teacher for labelled images, too: three candidates beside plain fast training, at equal seconds.

    python examples/teachers.py --setting cnn-linf --seconds 60 --seeds 0 1 2     # adds to the records
    python examples/teachers.py --tables                                         # from the records alone

All arms start from the same model, trained ordinarily on the same 10,000 labels, and take the same attack, N-FGSM. What gains
stays; so the candidates are objects of this script, each an attack and an objective in one: the attack sees the images, and
the objective what was found for them. Seconds are those of a clock: run nothing else beside it.
"""

import argparse
import copy
import json
import math
import time
from functools import lru_cache
from pathlib import Path
from statistics import mean

import torch
from images import FASHION_MNIST, fashion_mnist, first
from self_training import IMAGES, SETTINGS, TEST, Case, cell, measured
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import robusttune
from robusttune.attacks import LossOf, ThreatModel
from robusttune.attacks.nfgsm import nfgsm
from robusttune.model.borrowing import evaluating, statistics_untouched

RECORDS = Path(__file__).parents[1] / "docs" / "studies" / "teachers.jsonl"
AWP = 0.005


class Plain:
    """Adversarial training, and what the candidates share.

    Args:
        model: to be trained.
        seconds: of training.
    """

    needs_clean = False

    def __init__(self, model: nn.Module, seconds: float) -> None:
        self.model, self.seconds = model, seconds
        self.teacher = copy.deepcopy(model).eval().requires_grad_(False)
        self.began: float | None = None

    def attack(self, loss_of: LossOf, images: Tensor, threat: ThreatModel, *, generator: torch.Generator) -> Tensor:
        """The adversarial images of training; `look` comes first."""
        self.began = time.monotonic() if self.began is None else self.began
        with torch.no_grad():
            self.look(images)
        adversarial = nfgsm(loss_of, images, threat, generator=generator)
        with torch.no_grad():
            self.look_again(images, adversarial, threat)
        return adversarial

    def look(self, images: Tensor) -> None:
        """Ask the teacher about the images."""

    def look_again(self, images: Tensor, adversarial: Tensor, threat: ThreatModel) -> None:
        """Ask the teacher about the adversarial images."""

    def attack_loss(self, logits: Tensor, labels: Tensor, clean_logits: None) -> Tensor:
        """The loss (N,) that the attack maximises."""
        return F.cross_entropy(logits, labels, reduction="none")

    def loss(self, adversarial_logits: Tensor, labels: Tensor, clean_logits: None) -> Tensor:
        """The loss (N,) of training."""
        return self.attack_loss(adversarial_logits, labels, clean_logits)


class Anchor(Plain):
    """The squared distance of adversarial logits to the teacher's clean ones beside the loss; LBGAT with a frozen teacher.

    Args:
        weight: of the mean squared distance.
    """

    def __init__(self, model: nn.Module, seconds: float, weight: float) -> None:
        super().__init__(model, seconds)
        self.weight = weight

    def look(self, images: Tensor) -> None:
        self.clean = self.teacher(images)

    def loss(self, adversarial_logits: Tensor, labels: Tensor, clean_logits: None) -> Tensor:
        far = (adversarial_logits - self.clean).square().mean(1)
        return super().loss(adversarial_logits, labels, clean_logits) + self.weight * far


class MovingAverage(Plain):
    """Soft labels by the moving average of the weights, in the attack and in the loss; ADR.

    The temperature falls from 2.5 to 2 and the teacher's share grows from 0.7 to 0.95 over the run, both by a cosine; the share
    is smaller where the teacher is wrong.

    Args:
        decay: of the average, per step.
    """

    def __init__(self, model: nn.Module, seconds: float, decay: float = 0.995) -> None:
        super().__init__(model, seconds)
        self.decay = decay

    def look(self, images: Tensor) -> None:
        for kept, now in zip(self.teacher.parameters(), self.model.parameters(), strict=True):
            kept.lerp_(now, 1 - self.decay)
        for kept, now in zip(self.teacher.buffers(), self.model.buffers(), strict=True):
            kept.copy_(now)
        self.clean = self.teacher(images)

    def attack_loss(self, logits: Tensor, labels: Tensor, clean_logits: None) -> Tensor:
        return F.cross_entropy(logits, self.soft(labels), reduction="none")

    def soft(self, labels: Tensor) -> Tensor:
        """The labels (N,K) of this moment."""
        passed = 0.0 if self.began is None else min(1.0, (time.monotonic() - self.began) / self.seconds)
        left = (1 + math.cos(math.pi * passed)) / 2
        answers = (self.clean / (2.0 + 0.5 * left)).softmax(1)
        right = answers.gather(1, labels[:, None])
        share = (0.95 - 0.25 * left - (answers.amax(1, keepdim=True) - right)).clamp(0, 1)
        return share * answers + (1 - share) * F.one_hot(labels, answers.shape[1])


class Helper(Plain):
    """Points twice as far as the adversarial images get the label that the teacher gives to these; HAT's helper points.

    Args:
        weight: of their loss.
    """

    def __init__(self, model: nn.Module, seconds: float, weight: float = 0.5) -> None:
        super().__init__(model, seconds)
        self.weight = weight

    def look_again(self, images: Tensor, adversarial: Tensor, threat: ThreatModel) -> None:
        inside = threat.project(adversarial, images)  # N-FGSM's may lie outside the ball
        self.points = (2 * inside - images).clamp(0, 1)
        self.labels = self.teacher(inside).argmax(1)

    def loss(self, adversarial_logits: Tensor, labels: Tensor, clean_logits: None) -> Tensor:
        with statistics_untouched(self.model):
            far = F.cross_entropy(self.model(self.points), self.labels, reduction="none")
        return super().loss(adversarial_logits, labels, clean_logits) + self.weight * far


ARMS = {
    "plain": Plain,
    "anchor 0.1": lambda model, seconds: Anchor(model, seconds, 0.1),
    "anchor 1": lambda model, seconds: Anchor(model, seconds, 1.0),
    "moving average": MovingAverage,
    "helper points": Helper,
}


@lru_cache(maxsize=1)
def started(name: str, seed: int, count: int) -> tuple[Case, nn.Module]:
    """The images of a seed, and the model that all its arms start from."""
    images = first(fashion_mnist()[0], count)
    case = Case(SETTINGS[name], images, images, images, seed)
    return case, case.start(images)


def run(name: str, arm: str, awp: bool, seed: int, options: argparse.Namespace) -> dict[str, object]:
    """Train and measure one arm."""
    case, start = started(name, seed, options.images)
    model = copy.deepcopy(start)
    method, began = ARMS[arm](model, options.seconds), time.monotonic()
    length = {"epochs": 10_000, "max_steps": None, "time_budget": options.seconds}
    steps = []
    model = case.hardened(
        model,
        case.images,
        objective=method,
        attack=method.attack,
        awp=AWP * awp,
        on_epoch=lambda facts: steps.append(facts["step"]),
        **length,
    )
    seconds = time.monotonic() - began
    with evaluating(model):
        values = measured(model, case.setting, DataLoader(first(fashion_mnist()[1], options.test), 250), options.judge)
    label = f"{arm}, awp" if awp else arm
    facts = {"setting": name, "arm": label, "seed": seed, "budget": options.seconds, "seconds": round(seconds, 1)}
    return {**facts, "steps": int(steps[-1]), "version": robusttune.__version__, **values}


def known() -> list[dict[str, object]]:
    """The records so far."""
    return [json.loads(line) for line in RECORDS.read_text().splitlines()] if RECORDS.exists() else []


def table(name: str, records: list[dict[str, object]]) -> str:
    """The means over seeds of one setting, with standard deviations."""
    columns = ["clean", "0.5 eps", "1 eps", "1.5 eps", "strong", "autoattack"]
    lines = [f"| arm | seeds | {' | '.join(columns)} | steps |", "|" + "---|" * (len(columns) + 3)]
    groups: dict[object, list[dict[str, object]]] = {}
    for record in records:
        if record["setting"] == name:
            groups.setdefault(record["arm"], []).append(record)
    for arm, runs in groups.items():
        cells = [cell([each[column] for each in runs if column in each]) for column in columns]
        lines.append(f"| {arm} | {len(runs)} | {' | '.join(cells)} | {mean(each['steps'] for each in runs):.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, or print the tables."""
    options = arguments()
    if options.tables:
        for name in SETTINGS:
            print(f"\n{name}: {' '.join(map(str, SETTINGS[name]))}\n\n{table(name, known())}")
        return
    torch.set_num_threads(1)
    fields = ("setting", "arm", "seed", "budget")
    done = {tuple(record[field] for field in fields) for record in known() if options.judge in record}
    for seed in options.seeds:
        for arm in options.arms:
            for awp in options.awp:
                label = f"{arm}, awp" if awp else arm
                if (options.setting, label, seed, options.seconds) not in done:
                    record = run(options.setting, arm, bool(awp), seed, options)
                    print(json.dumps(record), flush=True)
                    if not options.dry:
                        with RECORDS.open("a", encoding="utf-8") as file:
                            file.write(json.dumps(record) + "\n")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--setting", choices=SETTINGS, default="cnn-linf")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--awp", type=int, nargs="+", choices=[0, 1], default=[0, 1], help="without and with it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=60.0, help="of training, the same for all arms")
    parser.add_argument("--judge", choices=["strong", "autoattack"], default="strong")
    parser.add_argument("--images", type=int, default=IMAGES, help="to train on")
    parser.add_argument("--test", type=int, default=TEST, help="images to measure on")
    parser.add_argument("--dry", action="store_true", help="add nothing to the records")
    parser.add_argument("--tables", action="store_true", help="print the tables of the records, and run nothing")
    if not FASHION_MNIST.exists():
        parser.exit(1, f"{FASHION_MNIST} is not there: install Debian's dataset-fashion-mnist\n")
    return parser.parse_args()


if __name__ == "__main__":
    main()
