"""Estimated cost of a trial: measured with a few real steps and a few real images before the arms are trained."""

import copy
import inspect
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from torch import Tensor, nn

from robusttune import plugins
from robusttune.data.batches import first_batch, unpacked
from robusttune.data.pixels import Pixels, find_pixels
from robusttune.measuring.evaluate import evaluate
from robusttune.model.devices import chosen_device, placed
from robusttune.model.features import predicted_classes
from robusttune.run.log import quiet, tell
from robusttune.run.writing import write_text
from robusttune.trial.arms import Settings
from robusttune.trial.arms._phase import Item, name_and_settings
from robusttune.trial.budget import Cost, stage_seconds, total_seconds, with_price
from robusttune.trial.data import Data, InputSpace
from robusttune.trial.phases import Call, calls_of
from robusttune.trial.plan import Estimate, TrialPlan
from robusttune.trial.results import digest
from robusttune.trial.screening import screening_of
from robusttune.types import Json, Loader

FILE = "costs.json"
STEPS = 5  # of pre-training, of which the first is left out
TINY = 1e-5  # share of a radius
FIRST_IMAGES, GROWTH = 4, 4  # an evaluation is timed on 4 images, then on 16, 64, …
LONG_ENOUGH = 1.0  # seconds, after which no more images are taken

Measured = TypeVar("Measured", float, "tuple[float, float, float]")


class Costs:
    """Measures costs that are not known yet, and keeps them in `costs.json`.

    Args:
        folder: the folder of the trial.
        model: where every arm starts.
        data: the data of the trial.
        space: the model's input and its place.
        progress: log each measurement.
    """

    def __init__(
        self, folder: Path, model: nn.Module, data: Data, space: InputSpace, *, progress: bool = False
    ) -> None:
        self.path, self.model, self.data, self.space, self.progress = folder / FILE, model, data, space, progress
        self.known: dict[str, Any] = json.loads(self.path.read_text()) if self.path.exists() else {}

    def calls(self, plan: TrialPlan) -> dict[str, list[Call]]:
        """Return the calls of each arm of a plan of one stage."""
        return {arm: calls_of(plan, arm, self.data, self.space) for arm in plan.arms}

    def seconds(self, plan: TrialPlan) -> float:
        """Return the cost of all stages, at most."""
        return total_seconds(plan, self.of)

    def estimated(self, plan: TrialPlan) -> Estimate:
        """Return the entry of the plan that states its cost, of one seed of each arm in each stage."""
        first = screening_of(plan)
        entry: Estimate = {
            "in all": with_price(self.seconds(plan), plan),
            "seconds with one seed": _of_stage(self.calls(plan), self.of(plan)),
        }
        if first is not None:
            entry["in all"] = f"at most {entry['in all']}"
            entry["of the screening"] = with_price(stage_seconds(first, self.of(first)), plan)
            entry["seconds with one seed of the screening"] = _of_stage(self.calls(first), self.of(first))
        return entry

    def of(self, plan: TrialPlan) -> dict[str, Cost]:
        """Return the cost of each arm of a plan of one stage with one seed.

        Attacks on arms that were trained against an adversary are counted with their upper bound, as if every image
        withstood all of them. For other arms, they are measured on the model as it is.
        """
        about = (plan.model, plan.data)
        items, more = (
            [self._item(item, plan.threat or ("linf", 0.0), about) for item in group]
            for group in (plan.evaluation.items, plan.evaluation.more)
        )
        costs = {}
        for arm, of_arm in self.calls(plan).items():
            hardened = any(call.kind == "harden" for call in of_arm)
            measuring, closely = (
                plan.evaluation.images * sum(bound if hardened else now for now, bound in group)
                for group in (items, more)
            )
            phases = [self._phase(arm, call, about) for call in of_arm]
            training, fixed = map(sum, zip(*phases, strict=True)) if phases else (0.0, 0.0)
            costs[arm] = Cost(training, measuring, fixed, closely)
        return costs

    def _phase(self, arm: str, call: Call, about: tuple[object, ...]) -> tuple[float, float]:
        """Return seconds of a phase's training without saving checkpoints, and seconds before and after it."""
        function = "pretrain" if call.kind == "pretrain" else "harden"
        settings = {**vars(call.space), **call.settings, "epochs": None, "max_steps": None}
        fixed, step, epoch = self._measured(
            f"a few steps of {arm}", [function, settings, *about], partial(self._rates, call)
        )
        return call.length.steps * step + call.length.epochs * epoch, fixed

    def _rates(self, call: Call) -> tuple[float, float, float]:
        """Measure seconds before and after all steps, of a step, and of judging an epoch."""
        model = copy.deepcopy(self.model)
        if call.kind == "pretrain":
            batches = _Timed(call.images, STEPS)
            call.pretrain_an_epoch(model, batches)
            return 0.0, batches.seconds(), 0.0
        expected = call.estimate(model)
        steps, judging = expected.parts["steps"], expected.parts["judging"]
        return expected.seconds - steps - judging, steps / expected.steps, judging / expected.epochs

    def _item(self, item: Item, threat: tuple[str, float], about: tuple[object, ...]) -> tuple[float, float]:
        """Measure an evaluation item's seconds for each image: of the model as it is, and their upper bound."""
        name, settings = name_and_settings(item)
        subject = f"{name} on a few images"
        now = self._measured(subject, [item, threat, *about], lambda: self._evaluated(name, settings, threat))
        if "eps" not in inspect.signature(plugins.find("evaluations", name)).parameters:
            return now, now
        # An attack takes longest where it fools the model on no image, as at a tiny radius with the model's classes as labels.
        smaller = {
            key: _tiny(value) if key == "eps" and value is not None else value for key, value in settings.items()
        }
        request = ["at most", name, smaller, threat, *about]
        tiny = (threat[0], TINY * threat[1])
        bound = self._measured(subject, request, lambda: self._evaluated(name, smaller, tiny, model_labels=True))
        return now, max(now, bound)

    def _evaluated(
        self, name: str, settings: Settings, threat: tuple[str, float], *, model_labels: bool = False
    ) -> float:
        """Measure seconds of an evaluation for each image; with `model_labels`, the model's classes are the labels."""
        images, labels = unpacked(first_batch(self.data.test, "test_loader"))
        space = self.space
        pixels = find_pixels(
            images,
            self.data.test,
            mean=space.mean,
            std=space.std,
            normalized=space.normalized,
            model=self.model,
        )
        if model_labels:
            labels = self._classes(images, pixels)
        evaluation = plugins.configured("evaluations", name, **settings)
        norm, eps = threat
        count, seconds = 0, 0.0
        while count < len(images) and seconds < LONG_ENOUGH:
            count = min(len(images), GROWTH * count or FIRST_IMAGES)
            few = [(images[:count], labels[:count])]
            start = time.perf_counter()
            with quiet():  # a few images show nothing of the model
                evaluate(
                    self.model,
                    few,
                    evaluation,
                    norm=norm,
                    eps=eps,
                    device=space.device,
                    progress=False,
                    **pixels.arguments(),
                )
            seconds = time.perf_counter() - start
        return seconds / count

    def _classes(self, images: Tensor, pixels: Pixels) -> Tensor:
        """Return the model's classes (N,) of the loader's images (N,C,H,W)."""
        device = chosen_device(self.model, self.space.device)
        with placed(self.model, device):
            return predicted_classes(self.model, pixels.to(device), images)

    def _measured(self, subject: str, request: object, measure: Callable[[], Measured]) -> Measured:
        """Return a measurement from `costs.json`, or take it now and keep it there."""
        key = digest(request)
        if key not in self.known:
            tell(f"measuring: {subject}", self.progress)
            self.known[key] = measure()
            write_text(self.path, json.dumps(self.known, indent=1))
        known: Measured = self.known[key]
        return known


class _Timed:
    """A loader that repeats the first batch of another, and records when each one is taken."""

    def __init__(self, loader: Loader, count: int) -> None:
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
        """Return the median time from one batch to the next, without the first step."""
        return median(later - sooner for sooner, later in zip(self.times[1:], self.times[2:], strict=False))


def _tiny(eps: Any) -> Any:
    return [TINY * radius for radius in eps] if isinstance(eps, list | tuple) else TINY * eps


def _of_stage(calls: Mapping[str, Sequence[Call]], costs: Mapping[str, Cost]) -> dict[str, dict[str, Json]]:
    arms: dict[str, dict[str, Json]] = {}
    for arm, of_arm in calls.items():
        training, measuring, fixed, more = costs[arm]
        arms[arm] = {"training": round(training + fixed, 1), "measuring": round(measuring, 1)}
        arms[arm] |= {"measuring more": round(more, 1)} if more else {}
        if of_arm:
            arms[arm]["phases"] = [
                {"steps": call.length.steps, "epochs": call.length.epochs, "passes": round(call.length.passes, 2)}
                for call in of_arm
            ]
    return arms
