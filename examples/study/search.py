"""The search for the default: what a short run should do with its seconds.

    python -m examples.study.search --cost --settings cnn-linf              # how much longer a step of each arm takes
    python -m examples.study.search --settings cnn-linf --seeds 0           # adds to the records
    python -m examples.study.search --tables                                # from the records alone

All arms start from the same model, trained ordinarily on all images of the setting. Each takes as many steps as fit into the
seconds of the reference, six epochs of the fast recipe with 10,000 images; the time of a step is measured beforehand, alternately
with the reference's; once for both norms, which differ little in it.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

from torch import nn
from torch.nn import functional as F

from examples.study import costs, imagenet, program
from examples.study.cases import BATCH, SEARCHED, SETTINGS, case
from examples.study.methods import (
    GRADIENTS,
    PGD_2_WIDER_LATE,
    PGD_5_LATE,
    PGD_10_WIDER_LATE,
    WIDER_LATE,
    WIDEST_LATE,
    Anchored,
    Free,
    LayerPerturbation,
    Method,
    Softened,
)
from examples.study.records import Facts, Study, timed

# The customary rates, of SGD and of AdamW.
USUAL_RATE = {"test_resnet": 0.05, "mobilenetv3_small_050": 0.05, imagenet.MODEL: 0.05, "test_vit": 5e-4}


@dataclass(frozen=True)
class Arm:
    """Settings that differ from those of the reference: the fast recipe.

    Attributes:
        batch: images of a step.
        pace: the peak learning rate, as a multiple of the customary one.
        settings: arguments of `harden`.
        method: (model, steps) -> one with more settings.
        times: how many times the reference's seconds it takes.
    """

    batch: int = BATCH
    pace: float = 4.0
    settings: dict[str, object] = field(default_factory=dict)
    method: Callable[[nn.Module, int], Method | Softened | Anchored] | None = None
    times: float = 1.0

    @property
    def work(self) -> tuple[object, ...]:
        """What the time of a step depends on; a radius changes nothing about it."""
        method = None if self.method in (WIDER_LATE, WIDEST_LATE, PGD_10_WIDER_LATE) else self.method
        return self.batch, method, {name: value for name, value in self.settings.items() if name not in NUMBERS}

    @property
    def passes(self) -> float:
        """Forward and backward passes for each image of a step, the mean over a run; those of a teacher alone are left out."""
        if self.method is not None:
            gradients = GRADIENTS.get(self.method, 1.0)
        elif "attack" in self.settings:
            gradients = self.settings.get("steps", 1.0)
        else:
            gradients = 10.0 if self.settings.get("preset") == "joint" else 1.25
        return (gradients + 1 + ("awp" in self.settings)) * (2 if self.settings.get("tasks") else 1)


NUMBERS = ("lr", "ema", "eps_ramp", "criterion", "clip_grad")  # settings that leave the time of a step as it is
ADAMW = {"optimizer": "adamw", "weight_decay": 0.05, "clip_grad": 1.0}
PGD = {"preset": "joint", "tasks": None}
REFERENCE = "fast 128"
SHIPPED = "pgd-10 128, rate x2, x8 time"  # as others ship it: SGD, one cycle up to 0.1
ARMS = {
    REFERENCE: Arm(),
    "default so far": Arm(pace=1.0, settings={"preset": "joint", "tasks": "auto"}),
    "pgd-10 128, rate x1": Arm(pace=1.0, settings=PGD),
    "pgd-10 128, rate x4": Arm(settings=PGD),
    "pgd-10 64, rate x4": Arm(64, settings=PGD),
    "pgd-10 32, rate x4": Arm(32, settings=PGD),
    "pgd-10 32, rate x8": Arm(32, 8.0, settings=PGD),
    "pgd-10 16, rate x4": Arm(16, settings=PGD),
    "pgd-10 32, rate x2": Arm(32, 2.0, settings=PGD),
    "pgd-10 32, rate x1": Arm(32, 1.0, settings=PGD),
    "fast 128, rate x8": Arm(pace=8.0),
    "fast 64": Arm(64),
    "fast 64, rate x2": Arm(64, 2.0),
    "fast 64, rate x8": Arm(64, 8.0),
    "fast 32": Arm(32),
    "fast 32, rate x2": Arm(32, 2.0),
    "fast 32, rate x1": Arm(32, 1.0),
    "fast 16, rate x1": Arm(16, 1.0),
    "fast 16, rate x2": Arm(16, 2.0),
    "fast 64, one step throughout": Arm(64, settings={"attack": "nfgsm"}),
    "pgd-2 64": Arm(64, settings={"attack": "pgd", "steps": 2}),
    "pgd-2 32, gradients clipped at 1, at 1.25 eps late": Arm(
        32,
        settings={"clip_grad": 1.0},
        method=PGD_2_WIDER_LATE,
    ),
    "fast 64, smoothing 0.1": Arm(
        64, settings={"criterion": partial(F.cross_entropy, reduction="none", label_smoothing=0.1)}
    ),
    "fast 64, average 0.99": Arm(64, settings={"ema": 0.99}),
    "fast 64, average 0.999": Arm(64, settings={"ema": 0.999}),
    "fast 64, no average": Arm(64, settings={"ema": 0.0}),
    "fast 64, no ramp": Arm(64, settings={"eps_ramp": False}),
    "fast 64, awp": Arm(64, settings={"awp": 0.005}),
    "fast 64, gradients clipped at 1": Arm(64, settings={"clip_grad": 1.0}),
    "fast 64, rate x8, gradients clipped at 1": Arm(64, 8.0, {"clip_grad": 1.0}),
    "fast 64, gradients clipped at 0.5": Arm(64, settings={"clip_grad": 0.5}),
    "fast 32, rate x8, gradients clipped at 1": Arm(32, 8.0, {"clip_grad": 1.0}),
    "fast 32, rate x2, gradients clipped at 1": Arm(32, 2.0, {"clip_grad": 1.0}),
    "pgd-10 32, gradients clipped at 1": Arm(32, settings={**PGD, "clip_grad": 1.0}),
    "pgd-10 32, rate x8, gradients clipped at 1": Arm(32, 8.0, {**PGD, "clip_grad": 1.0}),
    "pgd-10 32, rate x16, gradients clipped at 1": Arm(32, 16.0, {**PGD, "clip_grad": 1.0}),
    "pgd-10 16, gradients clipped at 1": Arm(16, settings={**PGD, "clip_grad": 1.0}),
    "fast 32, gradients clipped at 1, x4 time": Arm(32, settings={"clip_grad": 1.0}, times=4),
    "pgd-10 32, gradients clipped at 1, at 1.25 eps late": Arm(
        32, settings={**PGD, "clip_grad": 1.0}, method=PGD_10_WIDER_LATE
    ),
    "pgd-10 32, gradients clipped at 1, at 1.25 eps late, x4 time": Arm(
        32, settings={**PGD, "clip_grad": 1.0}, method=PGD_10_WIDER_LATE, times=4
    ),
    "pgd-10 32, gradients clipped at 1, awp, x4 time": Arm(
        32, settings={**PGD, "clip_grad": 1.0, "awp": 0.005}, times=4
    ),
    SHIPPED: Arm(pace=2.0, settings=PGD, times=8),
    "fast 32, one step throughout": Arm(32, settings={"attack": "nfgsm"}),
    "fast 32, gradients clipped at 1, one step throughout": Arm(32, settings={"attack": "nfgsm", "clip_grad": 1.0}),
    "fast 32, gradients clipped at 1, one step throughout, x4 time": Arm(
        32, settings={"attack": "nfgsm", "clip_grad": 1.0}, times=4
    ),
    "fast 32, gradients clipped at 1, pgd-5 late": Arm(32, settings={"clip_grad": 1.0}, method=PGD_5_LATE),
    "fast 32, gradients clipped at 1, pgd-2 at 1.5 eps late": Arm(32, settings={"clip_grad": 1.0}, method=WIDEST_LATE),
    "fast 32, pgd-2 at 1.25 eps late": Arm(32, method=WIDER_LATE),
    "fast 16, pgd-2 at 1.25 eps late": Arm(16, method=WIDER_LATE),
    "fast 16, pgd-2 at 1.25 eps late, x0.25 time": Arm(16, method=WIDER_LATE, times=0.25),
    "fast 16, no ramp, pgd-2 at 1.25 eps late, x0.25 time": Arm(
        16, settings={"eps_ramp": False}, method=WIDER_LATE, times=0.25
    ),
    "fast 16, rate x2, pgd-2 at 1.25 eps late, x0.25 time": Arm(16, 2.0, method=WIDER_LATE, times=0.25),
    "fast 16, rate x8, pgd-2 at 1.25 eps late, x0.25 time": Arm(16, 8.0, method=WIDER_LATE, times=0.25),
    "fast 32, rate x2, pgd-2 at 1.25 eps late, x0.25 time": Arm(32, 2.0, method=WIDER_LATE, times=0.25),
    "fast 32, rate x8, pgd-2 at 1.25 eps late, x0.25 time": Arm(32, 8.0, method=WIDER_LATE, times=0.25),
    "fast 32, pgd-2 at 1.5 eps late": Arm(32, method=WIDEST_LATE),
    "fast 32, gradients clipped at 1, pgd-2 at 1.25 eps late": Arm(32, settings={"clip_grad": 1.0}, method=WIDER_LATE),
    "fast 32, gradients clipped at 5, pgd-2 at 1.25 eps late": Arm(32, settings={"clip_grad": 5.0}, method=WIDER_LATE),
    "pgd-10 32, gradients clipped at 5, at 1.25 eps late": Arm(
        32, settings={**PGD, "clip_grad": 5.0}, method=PGD_10_WIDER_LATE
    ),
    "fast 32, gradients clipped at 1, bf16": Arm(32, settings={"clip_grad": 1.0, "precision": "bf16"}),
    "fast 32, gradients clipped at 2": Arm(32, settings={"clip_grad": 2.0}),
    "fast 32, gradients clipped at 1": Arm(32, settings={"clip_grad": 1.0}),
    "fast 64, free gradients, rate x1": Arm(64, 1.0, method=Free),
    "fast 64, n-lap": Arm(64, method=LayerPerturbation),
    "fast 64, soft labels": Arm(64, method=Softened),
    "fast 64, anchor 1": Arm(64, method=lambda model, steps: Anchored(model, steps, 1.0)),
    "fast 64, adamw 0.002": Arm(64, settings={**ADAMW, "lr": 2e-3}),
    "fast 64, adamw 0.0005": Arm(64, settings={**ADAMW, "lr": 5e-4}),
    "fast 32, adamw 0.001": Arm(32, settings={**ADAMW, "lr": 1e-3}),
}


# The arms that count: by model, what each is.
BY_MODEL = {
    "test_resnet": {
        "the default": "fast 32, gradients clipped at 1, pgd-2 at 1.25 eps late",
        "PGD-10 at its best": "pgd-10 32, gradients clipped at 1",
        "the default before": "default so far",
    },
    "test_vit": {
        "the default": "fast 32, pgd-2 at 1.25 eps late",
        "PGD-10 at its best": "pgd-10 32, rate x4",
        "the default before": "default so far",
    },
}


# By setting, with what a setting has of its own: the best rate of PGD-10 for the CNN in linf is twice that of the others.
FINALISTS = {setting: BY_MODEL[known.model] for setting, known in SEARCHED.items()}
FINALISTS["cnn-linf"] = {**FINALISTS["cnn-linf"], "PGD-10 at its best": "pgd-10 32, rate x8, gradients clipped at 1"}

TIMES = (0.25, 0.5, 2, 4)  # multiples of the reference's seconds, for the curves of accuracy against time
for arms in (*BY_MODEL.values(), *FINALISTS.values()):
    for name in (arms["the default"], arms["PGD-10 at its best"]):
        ARMS |= {f"{name}, x{times:g} time": replace(ARMS[name], times=times) for times in TIMES}


def as_long_as(name: str) -> str:
    """The first arm whose step takes as long: it differs from this one in numbers alone."""
    work = ARMS[name].work
    return next(other for other, arm in ARMS.items() if arm.work == work)


@lru_cache(maxsize=1)
def started(setting: str, seed: int) -> nn.Module:
    """The model that all arms of a seed start from."""
    known = case(setting, None, seed)
    return known.start(known.images)


def hardened(setting: str, name: str, *, seed: int, steps: int) -> nn.Module:
    """The model after so many steps of an arm."""
    known, model, arm = case(setting, None, seed), copy.deepcopy(started(setting, seed)), ARMS[name]
    settings = {"lr": arm.pace * USUAL_RATE[known.setting.model], **arm.settings}
    if arm.method is None:
        return known.hardened(model, known.images, batch=arm.batch, max_steps=steps, **settings)
    method = arm.method(model, steps)
    settings |= method.settings()
    trained = known.hardened(model, known.images, batch=arm.batch, max_steps=steps, **settings)
    if isinstance(method, LayerPerturbation):
        method.hook.remove()
    return trained


def train(run: Facts) -> tuple[nn.Module, Facts]:
    """The model that a run ends with, after as many steps as fit into the reference's seconds."""
    setting, arm, seed = str(run["setting"]), str(run["arm"]), int(str(run["seed"]))
    started(setting, seed)
    steps = costs.steps(STUDY, SETTINGS[setting].model, as_long_as(arm), SETTINGS[setting].steps, REFERENCE)
    steps = round(steps * ARMS[arm].times)
    model, facts = timed(lambda: hardened(setting, arm, seed=seed, steps=steps))
    return model, {**facts, "steps": steps, "epochs": round(steps * ARMS[arm].batch / SETTINGS[setting].train, 2)}


STUDY = Study("search", train)


def tables() -> str:
    """The table of each setting."""
    return program.tables(
        STUDY,
        ["arm", "epochs", "passes"],
        lambda facts: list(ARMS).index(facts[0]),
        lambda run: {"passes": round(float(str(run["epochs"])) * ARMS[str(run["arm"])].passes, 1)},
    )


if __name__ == "__main__" and not program.at_equal_seconds(
    STUDY, __doc__.splitlines()[0], list(ARMS), hardened, lambda setting: SETTINGS[setting].model, as_long_as
):
    print(tables())
