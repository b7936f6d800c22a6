"""What a trial's plan will cost: measured in a few real steps and on a few real images, before anything long is started."""

import copy
import inspect
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from robusttune import plugins
from robusttune.data.batches import first_batch, unpacked
from robusttune.data.pixels import find_pixels
from robusttune.measuring.evaluate import evaluate
from robusttune.model.borrowing import evaluating
from robusttune.model.devices import chosen_device, dtype_of, placed
from robusttune.model.features import logits_of
from robusttune.run.files import write_bytes
from robusttune.run.log import tell
from robusttune.training.estimate import estimate
from robusttune.training.pretrain import pretrain
from robusttune.trial.budget import Cost, seconds_in_all, told
from robusttune.trial.data import Data
from robusttune.trial.phases import Call
from robusttune.trial.results import digest, named, threat_of

FILE = "costs.json"
STEPS = 5  # of pre-training, of which the first is left out
TINY = 1e-5  # of a radius
FEW, TIMES, LONG_ENOUGH = 4, 4, 1.0  # images at first, and so many times as many while that is done in less seconds


class Costs:
    """Measures what is not known yet, and keeps it in `costs.json`.

    Args:
        folder: of the trial.
        model: where every arm starts.
        data: of the trial.
        space: mean, std, normalized, classifier and device, as `harden` takes them.
        progress: say what is measured.
    """

    def __init__(
        self, folder: Path, model: nn.Module, data: Data, space: Mapping[str, Any], *, progress: bool = False
    ) -> None:
        self.path, self.model, self.data, self.space, self.progress = folder / FILE, model, data, space, progress
        self.known: dict[str, Any] = json.loads(self.path.read_text()) if self.path.exists() else {}

    def of(self, plan: Mapping[str, Any], calls: Mapping[str, Sequence[Call]]) -> dict[str, Cost]:
        """The cost of each arm of the plan with one seed.

        What attacks take is an upper bound for arms that were trained against an adversary: as if every image withstood
        all of them. For other arms it is what they take on the model as it is.
        """
        about, images = [plan["model"], plan["data"]], plan["evaluation"]["images"]
        items = [self._item(item, threat_of(plan) or ("linf", 0.0), about) for item in plan["evaluation"]["items"]]
        found = {}
        for arm, own in calls.items():
            attacked = any(named(phase)[0] == "harden" for phase in plan["arms"][arm])
            measuring = images * sum(at_most if attacked else now for now, at_most in items)
            phases = [self._phase(arm, call, about) for call in own]
            training, around = (sum(each) for each in zip(*phases, strict=True)) if phases else (0.0, 0.0)
            found[arm] = Cost(training, measuring, around)
        return found

    def _phase(self, arm: str, call: Call, about: list[Any]) -> tuple[float, float]:
        """Seconds of a phase's training, all but the saving of checkpoints, and of what comes before and after it."""
        own = {key: value for key, value in call.settings.items() if not key.endswith("_loader")}
        asked = [call.function.__name__, {**own, "epochs": None, "max_steps": None}, *about]
        once, step, epoch = self._measured(f"a few steps of {arm}", asked, partial(self._rates, call))
        return call.length.steps * step + call.length.epochs * epoch, once

    def _rates(self, call: Call) -> tuple[float, float, float]:
        """Seconds of what comes before and after all steps, of a step, and of the judgement after an epoch."""
        model = copy.deepcopy(self.model)
        if call.function is pretrain:
            few = _Timed(call.images, STEPS)
            pretrain(model, few, **{**call.settings, "epochs": 1, "max_steps": None}, progress=False)
            return 0.0, few.seconds(), 0.0
        found = estimate(model, call.images, **call.settings)
        step, epoch = found.parts["steps"] / found.steps, found.parts["judging"] / found.epochs
        return found.seconds - found.parts["steps"] - found.parts["judging"], step, epoch

    def _item(self, item: Any, threat: tuple[str, float], about: list[Any]) -> tuple[float, float]:
        """Seconds that an evaluation item takes for each image: of the model as it is, and of one that withstands all."""
        name, settings = named(item)
        what = f"{name} on a few images"
        now = self._measured(what, [item, threat, *about], lambda: self._evaluated(name, settings, threat))
        if "eps" not in inspect.signature(plugins.find("evaluations", name)).parameters:
            return now, now
        # What an attack costs depends on who withstands it, and at a tiny radius all do that the model is right about.
        less = {key: _tiny(value) if key == "eps" and value is not None else value for key, value in settings.items()}
        asked = ["at most", less, threat, *about]
        tiny = (threat[0], TINY * threat[1])
        return now, max(now, self._measured(what, asked, lambda: self._evaluated(name, less, tiny, right=True)))

    def _evaluated(
        self, name: str, settings: Mapping[str, Any], threat: tuple[str, float], *, right: bool = False
    ) -> float:
        """Seconds of an evaluation for each image; `right` gives images the labels that the model gives them."""
        images, labels = unpacked(first_batch(self.data.test, "test_loader"))
        space = {key: self.space[key] for key in ("mean", "std", "normalized")}
        pixels = find_pixels(images, self.data.test, **space, model=self.model)
        if right:
            labels = self._answers(images, pixels)
        what: Callable[..., Any] = plugins.configured("evaluations", name, **settings)
        given = {**pixels.arguments(), "device": self.space["device"], "norm": threat[0], "eps": threat[1]}
        count, seconds = 0, 0.0
        while count < len(images) and seconds < LONG_ENOUGH:
            count = min(len(images), TIMES * count or FEW)
            few = [(images[:count], labels[:count])]
            began = time.perf_counter()
            evaluate(self.model, few, what, **given, progress=False)
            seconds = time.perf_counter() - began
        return seconds / count

    def _answers(self, images: Tensor, pixels: Any) -> Tensor:
        """The classes (N,) that the model gives the loader's images (N,C,H,W)."""
        device = chosen_device(self.model, self.space["device"])
        with torch.no_grad(), placed(self.model, device), evaluating(self.model):
            there = pixels.to(device)
            inputs = there.inputs(there.pixels(images.to(device))).to(dtype_of(self.model))
            return logits_of(self.model(inputs)).argmax(1).cpu()

    def _measured(self, what: str, asked: Any, measure: Callable[[], Any]) -> Any:
        key = digest(asked)
        if key not in self.known:
            tell(f"measuring: {what}", self.progress)
            self.known[key] = measure()
            write_bytes(self.path, json.dumps(self.known, indent=1).encode())
        return self.known[key]


class _Timed:
    """A loader's first batch, so many times; it looks at the clock whenever the next one is asked for."""

    def __init__(self, loader: Any, count: int) -> None:
        self.batch, self.count, self.times = first_batch(loader), count, list[float]()
        self.dataset = getattr(loader, "dataset", None)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        self.times = []
        for _ in range(self.count):
            self.times.append(time.perf_counter())
            yield self.batch

    def seconds(self) -> float:
        """Of a step, from one batch to the next, all but the first."""
        return median(later - sooner for sooner, later in zip(self.times[1:], self.times[2:], strict=False))


def _tiny(eps: Any) -> Any:
    return [TINY * each for each in eps] if isinstance(eps, list | tuple) else TINY * eps


def estimated(
    plan: Mapping[str, Any], calls: Mapping[str, Sequence[Call]], costs: Mapping[str, Cost]
) -> dict[str, Any]:
    """What the plan says of its cost."""
    arms = {}
    for arm, own in calls.items():
        training, measuring, around = costs[arm]
        phases = [
            {"steps": call.length.steps, "epochs": call.length.epochs, "passes": round(call.length.passes, 2)}
            for call in own
        ]
        seconds = {"training": round(training + around, 1), "measuring": round(measuring, 1)}
        arms[arm] = {**seconds, **({"phases": phases} if phases else {})}
    return {"in all": told(seconds_in_all(plan, costs), plan), "seconds with one seed": arms}
