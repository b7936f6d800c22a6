"""Where the default holds: `harden` with nothing chosen but the adversary, in situations that differ in one thing from a usual one.

    python -m examples.study.situations             # adds to the records
    python -m examples.study.situations --tables    # from the records alone

The usual one is timm's test_resnet, trained ordinarily on 10,000 images of Fashion-MNIST, hardened against linf 8/255 for two epochs.
"""

import argparse
import json
import logging
import tempfile
import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

import robusttune
from examples.images import first
from examples.study.cases import DATA, SETTINGS, Case, Setting
from examples.study.records import Facts, Study, one_thread, timed
from robusttune.evaluations.sweep import sweep

TESTED = 500  # images, at most
USUAL = Setting("test_resnet", "linf", 8 / 255, test=TESTED)
DIGITS = USUAL._replace(data="digits", train=1_297)
IMAGENET = "EfficientNet-Lite0, ImageNet's weights, photographs of 96 px, linf 4/255, 10 epochs"
PHOTOGRAPHS = USUAL._replace(data="photographs", train=4_000)


class Situation(NamedTuple):
    """What is hardened, and how.

    Attributes:
        group: of the table.
        setting: model, adversary and images.
        epochs, batch: of hardening.
        start: (model) -> the one that is hardened, from one that was trained ordinarily.
        settings: more arguments of `harden`.
    """

    group: str
    setting: Setting = USUAL
    epochs: int = 2
    batch: int = 128
    start: Callable[["Situation", nn.Module], nn.Module] = lambda situation, model: model
    settings: dict[str, object] = {}  # noqa: RUF012 - never changed

    def hardened(self, model: nn.Module, **more: object) -> nn.Module:
        """The model after hardening in place."""
        setting = self.setting
        chosen = {"norm": setting.norm, "eps": setting.eps, "epochs": self.epochs, "device": "cpu"}
        chosen |= {**self.settings, **more}
        case = case_of(setting)
        return robusttune.harden(model, case.loader(case.images, self.batch), seed=0, progress=False, **chosen)


def untrained(situation: Situation, model: nn.Module) -> nn.Module:
    """The net with random weights."""
    return situation.setting.new()


def robust(situation: Situation, model: nn.Module) -> nn.Module:
    """The model, hardened once already."""
    return situation.hardened(model)


def in_another_order(situation: Situation, model: nn.Module) -> nn.Module:
    """The model with its classes in another order, so that nearly every answer is wrong."""
    head = model.get_classifier()
    with torch.no_grad():
        head.weight.copy_(head.weight.roll(1, 0))
        head.bias.copy_(head.bias.roll(1, 0))
    return model


def only_the_end_learns(situation: Situation, model: nn.Module) -> nn.Module:
    """The model, of which only the last stage and the head are trained."""
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.startswith(("layer4", "fc", "head", "stages.3")))
    return model


def radii(setting: Setting) -> dict[str, Situation]:
    """The customary radii of both norms, and larger ones."""
    asked = [("linf", pixels / 255, f"linf {pixels}/255") for pixels in (4, 8, 12, 16)]
    asked += [("l2", eps, f"l2 {eps:g}") for eps in (0.25, 0.5, 1.0, 2.0)]
    return {
        f"{setting.data}, {name}": Situation("radius", setting._replace(norm=norm, eps=eps))
        for norm, eps, name in asked
    }


def images(count: int) -> Setting:
    """The usual setting with so many images."""
    return USUAL._replace(train=count)


SITUATIONS = {
    **radii(USUAL),
    **radii(DIGITS),
    **radii(PHOTOGRAPHS),
    "2,000 images, 1 epoch": Situation("length", images(2_000), 1),
    "2,000 images, 5 epochs": Situation("length", images(2_000), 5),
    "2,000 images, 30 epochs": Situation("length", images(2_000), 30),
    "200 images, 2 epochs": Situation("images", images(200)),
    "200 images, 30 epochs": Situation("images", images(200), 30),
    "1,000 images": Situation("images", images(1_000)),
    "60,000 images, 1 epoch": Situation("images", images(60_000), 1),
    "2 classes": Situation("classes", USUAL._replace(data="two classes", train=2_000)),
    "100 classes": Situation("classes", USUAL._replace(data="pairs", length=2)),
    "batches of 16": Situation("batch", batch=16),
    "batches of 64": Situation("batch", batch=64),
    "batches of 512": Situation("batch", batch=512),
    "batches of 512, as they are": Situation("batch", batch=512, settings={"update_batch": None}),
    "robust already": Situation("start", start=robust),
    "untrained": Situation("start", start=untrained),
    "classes in another order": Situation("start", start=in_another_order),
    "early stages frozen": Situation("start", start=only_the_end_learns),
    "test_vit": Situation("model", USUAL._replace(model="test_vit")),
    "test_vit, linf 16/255": Situation("model", USUAL._replace(model="test_vit", eps=16 / 255)),
    "test_convnext": Situation("model", USUAL._replace(model="test_convnext")),
    "mobilenetv3_small_050": Situation("model", USUAL._replace(model="mobilenetv3_small_050")),
    "resnet10t": Situation("model", USUAL._replace(model="resnet10t")),
    IMAGENET: Situation("model", SETTINGS["imagenet-linf"], 10),
    "test_resnet, SGD at 5": Situation("rate", settings={"lr": 5.0}),
    "mobilenetv3_small_050, SGD at 1": Situation(
        "rate", USUAL._replace(model="mobilenetv3_small_050"), settings={"lr": 1.0}
    ),
    "test_vit, AdamW at 0.05": Situation("rate", USUAL._replace(model="test_vit"), settings={"lr": 0.05}),
    "test_vit, bf16, AdamW at 0.02": Situation(
        "rate", USUAL._replace(model="test_vit"), settings={"lr": 0.02, "precision": "bf16"}
    ),
}


def case_of(setting: Setting) -> Case:
    """The images of a setting, all with their labels."""
    images = first(_images(setting.data, setting.side)[0], setting.train)
    return Case(setting, images, images, Subset(images, []), 0)


@lru_cache(maxsize=1)
def _images(data: str, side: int) -> tuple[Dataset, Dataset]:
    return DATA[data].read(USUAL._replace(data=data, side=side, train=PHOTOGRAPHS.train))


def trained(setting: Setting) -> nn.Module:
    """The net after ordinary training."""
    case = case_of(setting)
    return case.start(case.images)


def judged(model: nn.Module, setting: Setting) -> dict[str, float]:
    """Accuracy on images that no run has trained on, unchanged and under APGD with 20 steps at the radius."""
    _, testing = _images(setting.data, setting.side)
    attack = partial(sweep, norms=[setting.norm], eps=[setting.eps], steps=20)
    unseen = DataLoader(first(testing, TESTED), 250)
    records = robusttune.evaluate(model, unseen, ["clean", attack], norm=setting.norm, eps=setting.eps, progress=False)
    clean, robust = [each.value for each in records if each.metric == "accuracy"]
    return {"clean": clean, "robust": robust}


class Warned(logging.Handler):
    """Collects what the library warns of in its log; doubts about the result are Python warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def facts_of(situation: Situation) -> Facts:
    """Harden in a situation, and say what came of it."""
    model = situation.start(situation, trained(situation.setting)).eval()
    before, warned = judged(model, situation.setting), Warned()
    log = logging.getLogger("robusttune")
    log.addHandler(warned)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as at_the_end:
        warnings.simplefilter("always", UserWarning)
        try:
            model, facts = timed(lambda: situation.hardened(model, out=folder))
        except (ValueError, RuntimeError) as error:  # the model has its old weights
            facts = {"seconds": 0.0, "refused": str(error)}
        written = Path(folder) / "log.jsonl"
        lines = [json.loads(line) for line in written.read_text().splitlines()] if written.exists() else []
    log.removeHandler(warned)
    back = sum("diverged at step" in line for line in lines)
    after = judged(model.eval(), situation.setting)
    return {
        **{f"{name} before": value for name, value in before.items()},
        **{f"{name} after": value for name, value in after.items()},
        "went back": back,
        "warned": [*warned.said, *(str(each.message) for each in at_the_end if each.category is UserWarning)],
        **facts,
    }


STUDY = Study("situations", lambda run: (nn.Identity(), {}))


def tables() -> str:
    """One table for each group of situations."""
    known = {str(run["situation"]): run for run in STUDY.runs()}
    parts = []
    for group in dict.fromkeys(situation.group for situation in SITUATIONS.values()):
        names = [name for name, situation in SITUATIONS.items() if situation.group == group and name in known]
        if not names:
            continue
        lines = [f"| {group} | clean before | clean after | at the radius before | after | went back | seconds |"]
        lines.append("|---|---|---|---|---|---|---|")
        for name in names:
            run = known[name]
            shares = [
                f"{100 * run[f'{what} {when}']:.1f}" for what in ("clean", "robust") for when in ("before", "after")
            ]
            seconds = f"{run['seconds']:.0f}" if "seconds" in run else ""
            lines.append(f"| {name} | {' | '.join(shares)} | {run['went back'] or ''} | {seconds} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def main() -> None:
    """Run what is missing, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SITUATIONS, metavar="SITUATION", default=list(SITUATIONS))
    parser.add_argument("--tables", action="store_true", help="print the tables of the records, and run nothing")
    options = parser.parse_args()
    if options.tables:
        print(tables())
        return
    one_thread()
    known = {run["situation"] for run in STUDY.runs()}
    for name in options.only:
        if name not in known:
            STUDY.add({"situation": name}, **facts_of(SITUATIONS[name]))


if __name__ == "__main__":
    main()
