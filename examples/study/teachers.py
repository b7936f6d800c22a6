"""A teacher for labelled images, too: candidates beside plain fast training, at equal seconds of the processor.

    python -m examples.study.teachers --cost --settings cnn-linf            # how much longer a step of each takes
    python -m examples.study.teachers --settings cnn-linf --seeds 0 1 2     # adds to the records
    python -m examples.study.teachers --tables                              # from the records alone

All arms start from the same model, trained ordinarily on the same 10,000 labels, and take the same attack, N-FGSM. The time of
a step is measured against plain training's beforehand, alternately, and an arm gets as many steps as fit into the time of
plain training's. What gains stays; so the candidates are objects of this script, each an attack and an objective in one: the
attack sees the images, and the objective what was found for them.
"""

import copy
import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from examples.study import costs, program
from examples.study.cases import BATCH, SETTINGS, case
from examples.study.records import Facts, Study, timed
from robusttune.attacks import LossOf, ThreatModel
from robusttune.attacks.nfgsm import nfgsm
from robusttune.model.borrowing import statistics_untouched

AWP = 0.005


class Plain:
    """Adversarial training, and what the candidates share.

    Args:
        model: to be trained.
        steps: of training.
    """

    needs_clean = False

    def __init__(self, model: nn.Module, steps: int) -> None:
        self.model, self.steps = model, steps
        self.teacher = copy.deepcopy(model).eval().requires_grad_(False)
        self.taken = 0

    def attack(self, loss_of: LossOf, images: Tensor, threat: ThreatModel, *, generator: torch.Generator) -> Tensor:
        """The adversarial images of training; `look` comes first."""
        with torch.no_grad():
            self.look(images)
        adversarial = nfgsm(loss_of, images, threat, generator=generator)
        with torch.no_grad():
            self.look_again(images, adversarial, threat)
        self.taken += 1
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

    def __init__(self, model: nn.Module, steps: int, weight: float) -> None:
        super().__init__(model, steps)
        self.weight = weight

    def look(self, images: Tensor) -> None:
        self.clean = self.teacher(images)

    def loss(self, adversarial_logits: Tensor, labels: Tensor, clean_logits: None) -> Tensor:
        far = (adversarial_logits - self.clean).square().mean(1)
        return super().loss(adversarial_logits, labels, clean_logits) + self.weight * far


class Remembered(Anchor):
    """An anchor whose teacher is asked once about each image: without random changes of the images its answers are the same."""

    def __init__(self, model: nn.Module, steps: int, weight: float) -> None:
        super().__init__(model, steps, weight)
        self.known: dict[bytes, Tensor] = {}

    def look(self, images: Tensor) -> None:
        names = [image.numpy().tobytes() for image in images]
        new = [row for row, name in enumerate(names) if name not in self.known]
        if new:
            self.known.update(zip([names[row] for row in new], self.teacher(images[new]), strict=True))
        self.clean = torch.stack([self.known[name] for name in names])


class MovingAverage(Plain):
    """Soft labels by the moving average of the weights, in the attack and in the loss; ADR.

    The temperature falls from 2.5 to 2 and the teacher's share grows from 0.7 to 0.95 over the run, both by a cosine; the share
    is smaller where the teacher is wrong.

    Args:
        decay: of the average, per step.
    """

    def __init__(self, model: nn.Module, steps: int, decay: float = 0.995) -> None:
        super().__init__(model, steps)
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
        left = (1 + math.cos(math.pi * min(1.0, self.taken / self.steps))) / 2
        answers = (self.clean / (2.0 + 0.5 * left)).softmax(1)
        right = answers.gather(1, labels[:, None])
        share = (0.95 - 0.25 * left - (answers.amax(1, keepdim=True) - right)).clamp(0, 1)
        return share * answers + (1 - share) * F.one_hot(labels, answers.shape[1])


class Helper(Plain):
    """Points twice as far as the adversarial images get the label that the teacher gives to these; HAT's helper points.

    Args:
        weight: of their loss.
    """

    def __init__(self, model: nn.Module, steps: int, weight: float = 0.5) -> None:
        super().__init__(model, steps)
        self.weight = weight

    def look_again(self, images: Tensor, adversarial: Tensor, threat: ThreatModel) -> None:
        inside = threat.project(adversarial, images)  # N-FGSM's may lie outside the ball
        self.points = (2 * inside - images).clamp(0, 1)
        self.labels = self.teacher(inside).argmax(1)

    def loss(self, adversarial_logits: Tensor, labels: Tensor, clean_logits: None) -> Tensor:
        with statistics_untouched(self.model):
            far = F.cross_entropy(self.model(self.points), self.labels, reduction="none")
        return super().loss(adversarial_logits, labels, clean_logits) + self.weight * far


PLAIN = "plain"
REMEMBERED = ", remembered"
METHODS: dict[str, Callable[[nn.Module, int], Plain]] = {
    PLAIN: Plain,
    "anchor 0.1": lambda model, steps: Anchor(model, steps, 0.1),
    "anchor 1": lambda model, steps: Anchor(model, steps, 1.0),
    "anchor 1" + REMEMBERED: lambda model, steps: Remembered(model, steps, 1.0),
    "anchor 0.1" + REMEMBERED: lambda model, steps: Remembered(model, steps, 0.1),
    "moving average": MovingAverage,
    "helper points": Helper,
}
WIDER = ", eps x1.1"
ARMS = [f"{method}{more}" for more in ("", WIDER, ", awp") for method in METHODS]


@lru_cache(maxsize=1)
def started(setting: str, seed: int) -> nn.Module:
    """The model that all arms of a seed start from."""
    known = case(setting, None, seed)
    return known.start(known.images)


def hardened(setting: str, arm: str, *, seed: int, steps: int) -> nn.Module:
    """The model after so many steps of an arm."""
    known, model = case(setting, None, seed), copy.deepcopy(started(setting, seed))
    name = arm.removesuffix(", awp").removesuffix(WIDER)
    method = METHODS[name](model, steps)
    settings = {"objective": method, "attack": method.attack, "awp": AWP if arm.endswith("awp") else 0.0}
    if arm.endswith(WIDER):  # to compare clean accuracies at equal robustness
        settings["eps"] = 1.1 * known.setting.eps
    return known.hardened(model, known.images, **settings, max_steps=steps)


def train(run: Facts) -> tuple[nn.Module, Facts]:
    """The model that a run ends with, after as many steps as fit into the time of plain training's."""
    setting, arm, seed = str(run["setting"]), str(run["arm"]), int(str(run["seed"]))
    started(setting, seed)
    plain, images = SETTINGS[setting].steps, SETTINGS[setting].train
    steps = costs.steps(STUDY, setting, arm.replace(REMEMBERED, "").replace(WIDER, ""), plain)
    if REMEMBERED in arm:  # the teacher is asked in the first epoch alone
        steps = round(plain / (1 + (plain / steps - 1) * images / (plain * BATCH)))
    model, facts = timed(lambda: hardened(setting, arm, seed=seed, steps=steps))
    return model, {**facts, "steps": steps}


STUDY = Study("teachers", train)


def tables() -> str:
    """The table of each setting."""
    return program.tables(STUDY, ["arm", "steps"], lambda facts: ARMS.index(facts[0]))


if __name__ == "__main__" and not program.at_equal_seconds(
    STUDY, __doc__.splitlines()[0], ARMS, hardened, lambda setting: setting
):
    print(tables())
